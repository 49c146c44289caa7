"""Lines begin with their time, wherever output is cut into pieces."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from jobworker.cli.job_output import StampedLines, missing
from jobworker.core.output import Chunk, Gap, GapReason

NOON = datetime(2026, 3, 1, 12, 0, 0, 5, tzinfo=UTC)
FIRST, SECOND = b"2026-03-01T12:00:00.000005Z ", b"2026-03-01T12:00:01.000005Z "


def stamped(*pieces: bytes) -> bytes:
    """What becomes of pieces of which each comes a second later than the one before."""
    lines = StampedLines()
    return b"".join(
        lines.feed(Chunk(offset=0, data=piece, time=NOON.replace(second=number))) for number, piece in enumerate(pieces)
    )


@pytest.mark.parametrize(
    "pieces, shown",
    [
        ([b"a\n"], FIRST + b"a\n"),
        ([b"\n\n"], FIRST + b"\n" + FIRST + b"\n"),
        ([b"a\r\xff"], FIRST + b"a\r\xff"),
        ([b"a\nb", b"c\nd\n"], FIRST + b"a\n" + FIRST + b"bc\n" + SECOND + b"d\n"),
        ([b"a", b"\n"], FIRST + b"a\n"),
        ([b"a\n", b"b"], FIRST + b"a\n" + SECOND + b"b"),
    ],
)
def test_a_line_has_the_time_of_its_beginning(pieces: list[bytes], shown: bytes) -> None:
    """An end of a line without a next line has no stamp after it."""
    assert stamped(*pieces) == shown


@pytest.mark.parametrize("reason", list(GapReason))
def test_what_is_missing(reason: GapReason) -> None:
    """How much, where and why, for every reason."""
    told = missing(Gap(offset=4096, length=1_258_291, reason=reason))
    assert told.startswith("1.2 MiB of output are missing at offset 4096: ")
    assert len(told) > len("1.2 MiB of output are missing at offset 4096: ")


def test_a_time_that_is_not_known() -> None:
    """A line whose time is not known has a dash in its place, and what follows stays in its column."""
    lines = StampedLines()
    known = lines.feed(Chunk(offset=0, data=b"a\n", time=datetime(2026, 1, 2, tzinfo=UTC)))
    assert lines.feed(Chunk(offset=2, data=b"b\n")) == b"-".ljust(len(known) - len(b"a\n")) + b"b\n"
