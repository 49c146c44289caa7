"""The output of several jobs is told apart line by line, and no byte of it is changed."""

from __future__ import annotations

import random
import sys

import pytest

from jobworker.cli.lines import MAX_LINE_BYTES, JobLines, prefixes
from jobworker.core.job import Job
from jobworker.core.spec import JobSpec
from tests.support.jobs import accepted_job


def fed(data: bytes, *sizes: int, terminal: bool = False) -> bytes:
    """What becomes of output that comes in pieces of these sizes, and the rest as one."""
    lines = JobLines(b"> ", terminal=terminal)
    written = b""
    for size in sizes:
        written += lines.feed(data[:size])
        data = data[size:]
    return written + lines.feed(data) + lines.end()


@pytest.mark.parametrize(
    "output, lines",
    [
        (b"", b""),
        (b"\n", b"> \n"),
        (b"a\n\nb\n", b"> a\n> \n> b\n"),
        (b"no end", b"> no end\n"),
        (b"\0\xff\xfe\r\n\x1b[0m\r1\r2\n", b"> \0\xff\xfe\r\n> \x1b[0m\r1\r2\n"),
    ],
)
def test_lines(output: bytes, lines: bytes) -> None:
    """Each line has the prefix and an end; the bytes between are the job's."""
    assert fed(output) == lines


def test_only_whole_lines() -> None:
    """A line is given when its end is there."""
    lines = JobLines(b"> ", terminal=False)
    assert (lines.feed(b"a"), lines.feed(b"b\nc"), lines.feed(b"\n"), lines.end()) == (b"", b"> ab\n", b"> c\n", b"")


@pytest.mark.parametrize("beyond", [-1, 0, 1, MAX_LINE_BYTES, MAX_LINE_BYTES + 1, 10 * MAX_LINE_BYTES])
@pytest.mark.parametrize("end", [b"", b"\n", b"\nmore\n"])
def test_long_lines(beyond: int, end: bytes) -> None:
    """A line is cut only where it is longer than what is kept, and in the same places however it comes."""
    line = b"x" * (MAX_LINE_BYTES + beyond)
    pieces = [line[start : start + MAX_LINE_BYTES] for start in range(0, len(line), MAX_LINE_BYTES)]
    expected = b"".join(b"> " + piece + b"\n" for piece in (*pieces, *end.split()))
    assert fed(line + end) == expected
    assert fed(line + end, *[4099] * (len(line) // 4099)) == expected


def test_a_line_without_end_is_not_kept() -> None:
    """However long a line goes on, no more than the bound is held back."""
    lines = JobLines(b"", terminal=False)
    written = sum(len(lines.feed(bytes(10_000)).replace(b"\n", b"")) for _ in range(100))
    assert 0 <= 100 * 10_000 - written <= MAX_LINE_BYTES


def test_any_pieces() -> None:
    """Where the output is cut in transfer makes no difference."""
    chance = random.Random(1)  # noqa: S311 -- no secret
    output = bytes(chance.choices(b"ab\n\r\0\xff", k=2000))
    for terminal in (False, True):
        whole = fed(output, terminal=terminal)
        for _ in range(100):
            assert fed(output, *(chance.randrange(50) for _ in range(60)), terminal=terminal) == whole


def test_progress_on_a_terminal() -> None:
    """A progress bar that goes back to the beginning of its line does not overwrite the prefix there."""
    assert fed(b"1%\r2%\r\nend\r\n", terminal=True) == b"> 1%\r> 2%\r\n> end\r\n"


def job(job_id: str, name: str | None) -> Job:
    """A job with a name."""
    return accepted_job(job_id=job_id, spec=JobSpec(argv=("true",), name=name))


def test_prefixes() -> None:
    """A job goes by its name, one without by the beginning of its id, and no two by the same; all are equally wide."""
    jobs = [
        job("11111111-a", "build"),
        job("22222222-a", None),
        job("33333333-a", "日本"),
        job("44444444-a", "twin"),
        job("55555555-a", "twin"),
        job("66666666-a", None),
        job("66666666-b", None),
    ]
    assert [prefix.decode() for prefix in prefixes(jobs, sys.stdout)] == [
        "build         | ",
        "22222222      | ",
        "日本          | ",
        "twin-44444444 | ",
        "twin-55555555 | ",
        "66666666-a    | ",
        "66666666-b    | ",
    ]


def test_long_names() -> None:
    """A name that would fill the line is cut, and stays different from another one."""
    first, second = prefixes([job("1" * 8, "x" * 100 + "1"), job("2" * 8, "x" * 100 + "2")], sys.stdout)
    assert first.endswith("x…-11111111 | ".encode())
    assert second.endswith("x…-22222222 | ".encode())
    assert len(first) < 64
