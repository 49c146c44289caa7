"""Streams told apart, times, and selections by them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from jobworker.core.job import Job
from jobworker.core.output import OutputMode, Stream
from jobworker.core.spec import JobSpec
from jobworker.worker import Chunk, Gap, Selection, Worker
from tests.support.workers import LIMIT, Gate, chunks_of, said, shell

STDOUT, STDERR = frozenset({Stream.STDOUT}), frozenset({Stream.STDERR})


def split(script: str) -> JobSpec:
    """A job whose streams are told apart."""
    return replace(shell(script), output=OutputMode.SPLIT)


async def text(worker: Worker, job: Job, selection: Selection | int = 0, *, follow: bool = True) -> bytes:
    """What belongs to a selection; each piece is of a stream that was asked for, and at a growing offset."""
    data, offset = b"", 0
    async for chunk in chunks_of(worker, job.id, selection, follow=follow):
        assert chunk.offset >= offset
        offset = chunk.end
        if chunk.data and isinstance(selection, Selection):
            assert not selection.streams or chunk.stream in selection.streams
            assert (chunk.time is not None) == selection.times
        data += chunk.data
    return data


async def step(worker: Worker, job: Job, gate: Gate, wanted: bytes) -> None:
    """Let the job go on, and wait for what it says then."""
    gate.open()
    await said(worker, job, wanted)


async def test_streams_are_told_apart_and_stay_in_order(worker: Worker, gate: Gate) -> None:
    """Each byte is of one stream, in the order of arrival, live and late, all together and each alone."""
    wait = f"read x < {gate.path}"
    job = await worker.start(split(f"echo a; {wait}; echo b >&2; {wait}; echo c; {wait}; printf d >&2"), "ada")
    live = asyncio.ensure_future(pieces(worker, job))
    errors = asyncio.ensure_future(text(worker, job, Selection(streams=STDERR)))
    await said(worker, job, b"a\n")
    for line in (b"b\n", b"c\n"):
        await step(worker, job, gate, line)
    gate.open()
    expected = [(0, b"a\n", Stream.STDOUT), (2, b"b\n", Stream.STDERR), (4, b"c\n", Stream.STDOUT)]
    expected.append((6, b"d", Stream.STDERR))
    async with asyncio.timeout(LIMIT):
        assert await live == expected
        assert await errors == b"b\nd"
    assert await pieces(worker, job) == expected
    assert await text(worker, job, Selection(streams=STDOUT)) == b"a\nc\n"
    assert await text(worker, job, Selection(streams=STDERR)) == b"b\nd"
    assert await text(worker, job, Selection(streams=STDERR, offset=3)) == b"\nd"
    assert (await worker.get(job.id)).output_bytes == 7


async def test_a_stream_tells_where_it_has_ended_although_nothing_there_is_wanted(worker: Worker, gate: Gate) -> None:
    """Who goes on from there has neither something twice nor a hole: by the end of a job, before it, and of a time."""
    wait = f"read x < {gate.path}"
    before = datetime.now(UTC) - timedelta(seconds=10)
    job = await worker.start(split(f"echo a >&2; {wait}; echo b; {wait}"), "ada")
    await said(worker, job, b"a\n")
    following = asyncio.ensure_future(end_of(worker, job, Selection(streams=STDERR), follow=True))
    await step(worker, job, gate, b"b\n")
    cases = [
        (Selection(streams=STDERR), 4),
        (Selection(streams=STDOUT), 4),
        (Selection(streams=STDERR, offset=2), 4),
        (Selection(streams=STDERR, since=before), 4),
        (Selection(streams=STDOUT, until=before), 0),
        (Selection(streams=STDERR, since=before, until=datetime.now(UTC) + timedelta(hours=1)), 4),
        (Selection(since=datetime.now(UTC) + timedelta(hours=1)), 4),
        (Selection(streams=STDERR, tail=0), 4),
        (Selection(times=True), 4),
    ]
    for selection, end in cases:
        assert await end_of(worker, job, selection) == end, selection
    gate.open()
    assert await following == 4
    await worker.wait(job.id)
    for selection, end in cases:
        assert await end_of(worker, job, selection) == end, selection


async def test_a_stream_of_what_no_index_tells_of_ends_where_the_output_does(worker: Worker, state_dir: Path) -> None:
    """That of a release that had none: who wants one stream alone is not told to begin anew."""
    job = await worker.start(split("echo a"), "ada")
    await worker.wait(job.id)
    (state_dir / "jobs" / job.id / "index").unlink()
    since = datetime.now(UTC) - timedelta(hours=1)
    for selection in (Selection(streams=STDERR), Selection(streams=STDERR, since=since), Selection(since=since)):
        assert await end_of(worker, job, selection) == 2, selection


async def end_of(worker: Worker, job: Job, selection: Selection, *, follow: bool = False) -> int:
    """The offset that the last piece of a stream tells."""
    end = selection.offset
    async with asyncio.timeout(LIMIT):
        async for piece in worker.stream(job.id, selection, follow=follow):
            assert piece.offset >= end
            end = piece.end
    return end


async def pieces(worker: Worker, job: Job) -> list[tuple[int, bytes, Stream]]:
    """All chunks of a job."""
    return [(chunk.offset, chunk.data, chunk.stream) async for chunk in chunks_of(worker, job.id)]


async def test_both_streams_at_full_speed_are_complete(worker: Worker) -> None:
    """Megabytes on both at once: each stream alone has its own bytes, in their order, live and late."""
    lines = 300_000
    job = await worker.start(split(f"seq {lines} & seq {lines} >&2; wait"), "ada")
    expected = b"".join(b"%d\n" % number for number in range(1, lines + 1))
    for _ in range(2):
        assert await text(worker, job, Selection(streams=STDOUT)) == expected
        assert await text(worker, job, Selection(streams=STDERR)) == expected
        assert len(await text(worker, job)) == 2 * len(expected)


async def test_a_job_may_open_its_streams_anew(worker: Worker) -> None:
    """/dev/stdout and /dev/stderr are there for the job's user, as where both are one."""
    job = await worker.start(split("echo a > /dev/stdout; echo b > /dev/stderr"), "ada")
    assert await text(worker, job, Selection(streams=STDERR)) == b"b\n"
    assert await text(worker, job) == b"a\nb\n"


async def test_output_says_when_it_arrived_and_can_be_selected_by_it(worker: Worker, gate: Gate) -> None:
    """Times lie between what came before and after; since and until select by them, whichever way streams are kept."""
    for spec in (shell, split):
        wait = f"read x < {gate.path}"
        began = datetime.now(UTC)
        job = await worker.start(spec(f"echo a; {wait}; echo b; {wait}; echo c; {wait}"), "ada")
        times = [began]
        await said(worker, job, b"a\n")
        for line in (b"b\n", b"c\n"):
            times.append(await tick())
            await step(worker, job, gate, line)
        times.append(await tick())
        timed = [chunk async for chunk in chunks_of(worker, job.id, Selection(times=True), follow=False)]
        assert [chunk.data for chunk in timed] == [b"a\n", b"b\n", b"c\n"]
        for chunk, before, after in zip(timed, times, times[1:], strict=False):
            assert chunk.time is not None
            assert before <= chunk.time < after

        async def between(since: datetime | None, until: datetime | None, job: Job = job) -> bytes:
            return await text(worker, job, Selection(since=since, until=until), follow=until is not None)

        assert await between(times[1], times[2]) == b"b\n"  # ends by itself, though the job runs
        assert await between(times[1], None) == b"b\nc\n"
        assert await between(None, times[2]) == b"a\nb\n"
        assert await between(times[3], times[3]) == b""
        assert await text(worker, job, Selection(since=times[1], offset=3), follow=False) == b"\nc\n"
        gate.open()
        await worker.wait(job.id)
        assert await text(worker, job, Selection(since=times[2])) == b"c\n"
        assert await text(worker, job, Selection(since=times[3])) == b""


async def tick() -> datetime:
    """A time that is later than all before and earlier than all after, by more than what counts as one time: 1 ms."""
    await asyncio.sleep(0.005)  # it waits for no event: times are what is tried, so that time has to pass
    now = datetime.now(UTC)
    await asyncio.sleep(0.005)  # as above
    return now


async def test_a_follow_until_a_time_to_come_ends_then(worker: Worker) -> None:
    """Also if the job says nothing any more."""
    job = await worker.start(shell("echo a; exec sleep 4291"), "ada")
    await said(worker, job, b"a\n")
    until = datetime.now(UTC) + timedelta(seconds=0.2)
    async with asyncio.timeout(LIMIT):
        assert await text(worker, job, Selection(until=until)) == b"a\n"
    assert datetime.now(UTC) >= until


@pytest.mark.parametrize("count", [0, 1, 2, 9, 1000, 100_000, 10**9])
async def test_tail_begins_so_many_lines_before_the_end(worker: Worker, count: int) -> None:
    """As tail(1) does, with and without a newline at the end, however long the lines are, in all or some streams."""
    script = "seq 20000; head -c 200000 /dev/zero; echo; echo x; printf y; for i in 1 2 3; do echo e$i >&2; done"
    for spec, end in ((shell, b"ye1\ne2\ne3\n"), (split, b"y")):
        job = await worker.start(spec(script), "ada")
        numbers = b"".join(b"%d\n" % number for number in range(1, 20_001))
        expected = numbers + bytes(200_000) + b"\nx\n" + end
        streams = frozenset[Stream]() if spec is shell else STDOUT
        whole = await text(worker, job, Selection(streams=streams))
        assert whole == expected
        lines = whole.splitlines(keepends=True) if b"\r" not in whole else []
        wanted = b"".join(lines[-count:]) if count else b""
        assert await text(worker, job, Selection(tail=count, streams=streams)) == wanted
        if spec is split:
            errors = [b"e1\n", b"e2\n", b"e3\n"]
            wanted = b"".join(errors[-count:]) if count else b""
            assert await text(worker, job, Selection(tail=count, streams=STDERR)) == wanted


async def test_a_tail_goes_on_with_what_comes(worker: Worker, gate: Gate) -> None:
    """The last lines of what there is, and then the output as it is written."""
    job = await worker.start(shell(f"echo a; echo b; printf c; read x < {gate.path}; echo d; echo e"), "ada")
    await said(worker, job, b"c")
    async with aclosing(worker.stream(job.id, Selection(tail=2))) as stream:
        assert await up_to(stream, b"b\nc") == 2
        gate.open()
        assert await up_to(stream, b"d\ne\n") == 5


async def up_to(stream: AsyncIterator[Chunk | Gap], wanted: bytes) -> int:
    """Read just so much; the offset of its beginning."""
    data, offset = b"", None
    while data != wanted:
        piece = await anext(stream)
        assert isinstance(piece, Chunk)
        offset = piece.offset if offset is None else offset
        data += piece.data
        assert wanted.startswith(data), data
    assert offset is not None
    return offset


async def test_jobs_of_earlier_releases_can_be_read(worker: Worker, state_dir: Path) -> None:
    """Output without an index is of one stream, has no times, and is not left out for that."""
    job = await worker.start(shell("echo a; echo b"), "ada")
    await worker.wait(job.id)
    (state_dir / "jobs" / job.id / "index").unlink()
    assert await text(worker, job) == b"a\nb\n"
    assert await text(worker, job, Selection(tail=1)) == b"b\n"
    long_ago = datetime(2000, 1, 1, tzinfo=UTC)
    assert await text(worker, job, Selection(since=long_ago)) == b"a\nb\n"


async def test_a_job_that_writes_single_bytes_has_a_small_index(worker: Worker, state_dir: Path) -> None:
    """What comes within a millisecond is one record, so that the index is not larger than the output."""
    script = "import os\nfor _ in range(50_000): os.write(1, b'x')"
    job = await worker.start(JobSpec(argv=("python3", "-c", script)), "ada")
    ended = await worker.wait(job.id)
    assert ended.start_time is not None
    assert ended.end is not None
    milliseconds = (ended.end.end_time - ended.start_time) / timedelta(milliseconds=1)
    index = state_dir / "jobs" / job.id / "index"
    assert 16 <= index.stat().st_size <= 16 * (milliseconds + 1)
    assert await text(worker, job) == b"x" * 50_000
