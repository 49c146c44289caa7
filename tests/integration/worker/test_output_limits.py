"""How much output is kept, what becomes of a job beyond, and that whatever is missing is seen to be."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from jobworker.core.errors import InvalidArgumentError, JobNotFoundError, OffsetOutOfRangeError, QuotaExceededError
from jobworker.core.job import Job
from jobworker.core.output import GapReason, OutputLimit, OutputMode, OverflowPolicy, Stream
from jobworker.core.spec import JobSpec
from jobworker.core.state import Cause
from jobworker.executors import local
from jobworker.executors.directories import disk_bytes
from jobworker.worker import Chunk, Gap, OutputPolicy, Retention, Selection, Worker, space
from tests.integration.worker.conftest import NewWorker
from tests.support.polling import until_job
from tests.support.workers import LIMIT, Gate, said, shell, supervisor_of

SIZE = 65_536
LINE = 16  # bytes of a numbered line, so that each offset says what is there


def limited(script: str, policy: OverflowPolicy, size: int = SIZE) -> JobSpec:
    """A job with an output limit."""
    return replace(shell(script), output_limit=OutputLimit(size=size, policy=policy))


def numbered(count: int) -> str:
    """A script that writes numbered lines."""
    return f"seq -f %015.0f 0 {count - 1}"


def lines(offset: int, end: int) -> bytes:
    """What `numbered` writes between two offsets."""
    numbers = range(offset // LINE, (end + LINE - 1) // LINE)
    return b"".join(b"%015d\n" % number for number in numbers)[offset % LINE :][: end - offset]


async def checked(stream: AsyncIterator[Chunk | Gap], offset: int = 0) -> tuple[list[Gap], int]:
    """The gaps of a stream of numbered lines, and its end; nothing is left out, and each byte is at its offset."""
    gaps: list[Gap] = []
    async for piece in stream:
        assert piece.offset == offset
        offset = piece.end
        if isinstance(piece, Gap):
            assert piece.length > 0
            gaps.append(piece)
        else:
            assert piece.data == lines(piece.offset, piece.end)
    return gaps, offset


async def test_a_job_is_stopped_at_its_limit(worker: Worker) -> None:
    """It ends with that cause, by a signal first; what it writes to its end is dropped, counted and shown."""
    # Without stderr, on which the shell tells that its sleep was terminated, too.
    script = f"exec 2> /dev/null; trap 'echo; exit 7' TERM; {numbered(SIZE // LINE + 1)}; while :; do sleep 0.01; done"
    job = await worker.start(limited(script, OverflowPolicy.STOP), "ada")
    async with asyncio.timeout(LIMIT):
        gaps, offset = await checked(worker.stream(job.id))
        ended = await worker.wait(job.id)
    assert ended.end is not None
    assert (ended.end.cause, ended.end.exit_code) == (Cause.OUTPUT_LIMIT, 7)
    assert gaps == [Gap(offset=SIZE, length=LINE + 1, reason=GapReason.LIMIT)]
    assert offset == ended.output_bytes == SIZE + LINE + 1
    assert ended.end.output_dropped_bytes == LINE + 1
    assert ended.output_limit == OutputLimit(size=SIZE, policy=OverflowPolicy.STOP)


async def test_just_the_limit_is_no_excess(worker: Worker) -> None:
    """A job that writes so much ends as it likes."""
    job = await worker.start(limited(numbered(SIZE // LINE), OverflowPolicy.STOP), "ada")
    assert await checked(worker.stream(job.id)) == ([], SIZE)
    end = (await worker.wait(job.id)).end
    assert end is not None
    assert (end.cause, end.exit_code, end.output_dropped_bytes) == (Cause.EXITED, 0, 0)


@pytest.mark.parametrize("mode", list(OutputMode))
async def test_the_rest_of_the_output_may_be_dropped(worker: Worker, mode: OutputMode) -> None:
    """The job goes on to its end, and every reader is told what is missing: whole, from an offset, tail, one stream."""
    count = 1_000_000
    spec = replace(limited(numbered(count), OverflowPolicy.DROP), output=mode)
    job = await worker.start(spec, "ada")
    live = asyncio.ensure_future(checked(worker.stream(job.id)))
    ended = await worker.wait(job.id)
    assert ended.end is not None
    assert (ended.end.cause, ended.end.output_dropped_bytes) == (Cause.EXITED, count * LINE - SIZE)
    expected = [Gap(offset=SIZE, length=count * LINE - SIZE, reason=GapReason.LIMIT)], count * LINE
    assert await live == await checked(worker.stream(job.id)) == expected
    assert await checked(worker.stream(job.id, SIZE - 1), SIZE - 1) == expected
    last = count * LINE - 1
    rest = Gap(offset=last, length=1, reason=GapReason.LIMIT)
    assert await checked(worker.stream(job.id, last), last) == ([rest], count * LINE)
    beginning, *tail = [piece async for piece in worker.stream(job.id, Selection(tail=2))]
    assert beginning == Chunk(offset=SIZE - 32, data=b"")
    assert tail == [Chunk(offset=SIZE - 32, data=lines(SIZE - 32, SIZE), stream=stream_of(mode)), *expected[0]]
    timed = [replace(piece, time=None) if isinstance(piece, Chunk) else piece async for piece in timed_of(worker, job)]
    assert timed[-1] == expected[0][0]


def stream_of(mode: OutputMode) -> Stream:
    """Where numbered lines come from."""
    return Stream.STDOUT if mode is OutputMode.SPLIT else Stream.COMBINED


def timed_of(worker: Worker, job: Job) -> AsyncIterator[Chunk | Gap]:
    """All of a job's output, with its times."""
    return worker.stream(job.id, Selection(times=True))


@pytest.fixture(params=[True, False], ids=["holes", "segments"])
def holes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """How a ring gives back its beginning; to be taken before the worker."""

    def found(_: Path) -> bool:
        return request.param

    monkeypatch.setattr(local, "can_make_holes", found)
    return request.param


async def test_the_oldest_output_may_make_room(holes: bool, worker: Worker, state_dir: Path) -> None:  # noqa: FBT001 - a fixture
    """A late reader is told what has gone and gets the rest; no offset that is gone can be asked for."""
    count = 200_000
    job = await worker.start(limited(numbered(count), OverflowPolicy.KEEP_LAST), "ada")
    ended = await worker.wait(job.id)
    assert ended.end is not None
    end, first = count * LINE, ended.output_first_offset
    assert SIZE <= end - first <= SIZE * 5 // 4
    assert (ended.end.cause, ended.end.output_dropped_bytes, ended.output_bytes) == (Cause.EXITED, 0, end)
    output = state_dir / "jobs" / job.id / "output"
    assert output.is_dir() is not holes
    assert output.stat().st_blocks * 512 + disk_bytes(output) <= SIZE * 2
    trimmed = Gap(offset=0, length=first, reason=GapReason.TRIMMED)
    for selection in (Selection(), Selection(times=True)):
        assert await checked(worker.stream(job.id, selection)) == ([trimmed], end)
    assert await checked(worker.stream(job.id, first + 1), first + 1) == ([], end)
    assert await checked(worker.stream(job.id, Selection(tail=100)), end - 100 * LINE) == ([], end)
    assert await checked(worker.stream(job.id, Selection(tail=count)), first) == ([], end)
    for offset in (1, first - 1, end + 1):
        with pytest.raises(OffsetOutOfRangeError) as error:
            await anext(worker.stream(job.id, offset))
        assert (error.value.first, error.value.end) == (first, end)


@pytest.mark.timeout(120)
@pytest.mark.usefixtures("holes")
async def test_followers_of_a_ring_get_every_byte_right_or_a_gap(worker: Worker, shared: Path) -> None:
    """A fast writer frees what slow and fast followers are about to read, live, resuming and by the index."""
    stop = shared / "stop"
    program = (
        "import itertools, os\n"
        f"for n in itertools.count(0, 4096):\n"
        f"    os.write(1, b''.join(b'%015d\\n' % i for i in range(n, n + 4096)))\n"
        f"    if os.path.exists({str(stop)!r}): break\n"
    )
    spec = JobSpec(
        argv=("python3", "-c", program), output_limit=OutputLimit(size=SIZE, policy=OverflowPolicy.KEEP_LAST)
    )
    job = await worker.start(spec, "ada")
    seen: list[tuple[list[Gap], int]] = []

    async def follow(number: int) -> None:
        selection = Selection(times=number % 3 == 1)
        offset = 0
        async with aclosing(worker.stream(job.id, selection)) as stream:
            gaps: list[Gap] = []
            async for piece in stream:
                assert piece.offset == offset
                offset = piece.end
                if isinstance(piece, Gap):
                    assert piece.reason is GapReason.TRIMMED
                    gaps.append(piece)
                else:
                    assert piece.data == lines(piece.offset, piece.end), (number, piece.offset)
                    await asyncio.sleep(0.001 * (number % 5))  # it waits for nothing: some have to be slow
        seen.append((gaps, offset))

    followers = [asyncio.ensure_future(follow(number)) for number in range(20)]
    await until_job(worker.get, job.id, lambda job: job.output_first_offset >= 20_000_000)
    stop.touch()
    await asyncio.gather(*followers)
    ended = await worker.wait(job.id)
    assert {offset for _, offset in seen} == {ended.output_bytes}
    assert any(gaps for gaps, _ in seen)


@pytest.mark.usefixtures("holes")
async def test_a_ring_whose_supervisor_was_killed_is_there_up_to_its_last_byte(worker: Worker, gate: Gate) -> None:
    """Nothing that it has told or kept is lost with it."""
    count = 50_000
    job = await worker.start(limited(f"{numbered(count)}; read x < {gate.path}", OverflowPolicy.KEEP_LAST), "ada")
    end = count * LINE
    await until_job(worker.get, job.id, lambda job: job.output_bytes == end)
    os.kill(supervisor_of(job.id), signal.SIGKILL)
    lost = await worker.wait(job.id)
    assert lost.end is not None
    assert (lost.end.cause, lost.output_bytes, lost.end.output_dropped_bytes) == (Cause.LOST, end, 0)
    first = lost.output_first_offset
    assert SIZE <= end - first <= SIZE * 5 // 4
    for selection in (Selection(), Selection(times=True)):
        trimmed = Gap(offset=0, length=first, reason=GapReason.TRIMMED)
        assert await checked(worker.stream(job.id, selection)) == ([trimmed], end)


@pytest.mark.usefixtures("holes")
async def test_who_has_begun_to_read_a_ring_reads_to_the_end_after_its_removal(worker: Worker, gate: Gate) -> None:
    """What came since the last look is there, too."""
    script = f"{numbered(1)}; read x < {gate.path}; {numbered(4000)} | tail -n +2"
    job = await worker.start(limited(script, OverflowPolicy.KEEP_LAST), "ada")
    async with asyncio.timeout(LIMIT), aclosing(worker.stream(job.id)) as stream:
        assert await anext(stream) == Chunk(offset=0, data=lines(0, LINE))
        gate.open()
        await worker.wait(job.id)
        await worker.remove(job.id)
        assert await checked(stream, LINE) == ([], 4000 * LINE)


async def test_a_limit_is_by_default_and_has_a_maximum(new_worker: NewWorker) -> None:
    """What a job does not say is the server's to say, and is shown; more than the maximum is refused."""
    policy = OutputPolicy(default=OutputLimit(size=SIZE, policy=OverflowPolicy.DROP), maximum=SIZE * 2)
    async with new_worker(output=policy) as worker:
        job = await worker.start(shell(numbered(SIZE // LINE + 1)), "ada")
        assert job.output_limit == policy.default
        assert await checked(worker.stream(job.id)) == (
            [Gap(offset=SIZE, length=LINE, reason=GapReason.LIMIT)],
            SIZE + LINE,
        )
        more = await worker.start(limited("true", OverflowPolicy.STOP, SIZE * 2), "ada")
        assert (await worker.wait(more.id)).output_limit == OutputLimit(size=SIZE * 2, policy=OverflowPolicy.STOP)
        with pytest.raises(InvalidArgumentError, match="maximum"):
            await worker.start(limited("true", OverflowPolicy.STOP, SIZE * 2 + 1), "ada")
    async with new_worker() as worker:
        assert (await worker.get(job.id)).output_limit == policy.default


@pytest.mark.parametrize("lost", [False, True])
async def test_what_a_job_that_was_killed_has_dropped_is_known(worker: Worker, gate: Gate, *, lost: bool) -> None:
    """A stop in the middle of dropping, or the death of the supervisor, changes nothing in what is told."""
    job = await worker.start(limited(f"{numbered(100_000)}; read x < {gate.path}", OverflowPolicy.DROP), "ada")
    await until_job(worker.get, job.id, lambda job: job.output_bytes == 100_000 * LINE)
    gap = Gap(offset=SIZE, length=100_000 * LINE - SIZE, reason=GapReason.LIMIT)
    assert await checked(worker.stream(job.id, follow=False)) == ([gap], gap.end)
    if lost:
        os.kill(supervisor_of(job.id), signal.SIGKILL)
    else:
        await worker.stop(job.id, by="ada", grace=timedelta(0))
    assert await checked(worker.stream(job.id)) == ([gap], gap.end)
    end = (await worker.wait(job.id)).end
    assert end is not None
    assert (end.cause is Cause.LOST, end.output_bytes, end.output_dropped_bytes) == (lost, gap.end, gap.length)


async def test_no_job_is_started_when_all_output_takes_too_much_of_the_disk(
    new_worker: NewWorker, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks count, holes do not; what retention may remove goes first; running jobs are left alone."""
    monkeypatch.setattr(space, "LOOK_PART", 0)  # no look may be an old one
    bound = 1_000_000
    async with new_worker(output=OutputPolicy(max_state_bytes=bound)) as worker:
        running = await worker.start(shell(f"head -c 600000 /dev/zero; echo; read x < {gate.path}"), "ada")
        await said(worker, running, b"\0\n")
        ring = await worker.start(limited("head -c 5000000 /dev/zero", OverflowPolicy.KEEP_LAST), "ada")
        ended = await worker.wait(ring.id)
        large = await worker.start(shell("head -c 500000 /dev/zero"), "ada")
        await worker.wait(large.id)
        with pytest.raises(QuotaExceededError) as error:
            await worker.start(shell("true"), "ada")
        assert error.value.bound == bound
        assert (await worker.get(running.id)).end is None
        await worker.remove(large.id)
        again = await worker.start(shell("head -c 500000 /dev/zero"), "ada")
        await worker.wait(again.id)
        with pytest.raises(QuotaExceededError):
            await worker.start(shell("true"), "ada")
        gate.open()
        await worker.wait(running.id)
    keep = Retention(total_bytes=700_000)
    async with new_worker(output=OutputPolicy(max_state_bytes=bound), retention=keep) as worker:
        await worker.wait((await worker.start(shell("true"), "ada")).id)
        with pytest.raises(JobNotFoundError):
            await worker.get(running.id)
        assert (await worker.get(ring.id)).output_first_offset == ended.output_first_offset > 0
