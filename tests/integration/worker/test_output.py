"""Output: every byte, live and late, from any offset, for any number of readers, until exactly the end."""

from __future__ import annotations

import asyncio
import hashlib
import subprocess
import sys
import time
from contextlib import aclosing
from datetime import timedelta
from pathlib import Path

import pytest

from jobworker.core.errors import JobNotFoundError, OffsetOutOfRangeError
from jobworker.core.job import Job
from jobworker.core.spec import JobSpec
from jobworker.worker import Worker
from tests.integration.worker.conftest import needs_root
from tests.support.polling import until
from tests.support.workers import LIMIT, Gate, chunks_of, open_files, output_of, said, shell

ODD = bytes(range(256)) * 300 + b"\xff\xfe\x00" + b"no newline at the end"


@pytest.fixture
def odd_file(shared: Path) -> Path:
    """A file of NULs, invalid UTF-8 and no final newline."""
    path = shared / "odd"
    path.write_bytes(ODD)
    return path


async def test_100_mb_of_random_bytes_are_the_same_live_and_late(worker: Worker, shared: Path) -> None:
    """The sum that the job itself makes of its bytes is that of a live follower and that of a late reader."""
    size = 100_000_000
    job = await worker.start(shell(f"head -c {size} /dev/urandom | tee /dev/stderr | sha256sum > {shared}/sum"), "ada")
    live, offset = hashlib.sha256(), 0
    async for chunk in chunks_of(worker, job.id):
        assert chunk.offset == offset
        assert 0 < len(chunk.data) <= 1024 * 1024
        live.update(chunk.data)
        offset += len(chunk.data)
    ended = await worker.wait(job.id)
    assert ended.end is not None
    assert offset == size == ended.output_bytes == ended.end.output_bytes
    late = hashlib.sha256(await output_of(worker, job))
    assert late.hexdigest() == live.hexdigest() == (shared / "sum").read_text().split()[0]


async def test_output_is_bytes_and_can_be_read_from_any_offset(worker: Worker, odd_file: Path) -> None:
    """NULs, invalid UTF-8 and a missing newline arrive; each offset gives exactly the rest; the end is an offset."""
    job = await worker.start(JobSpec(argv=("cat", str(odd_file))), "ada")
    assert await output_of(worker, job) == ODD
    for offset in (0, 1, 255, 256, 65_536, len(ODD) - 1, len(ODD)):
        assert await output_of(worker, job, offset) == ODD[offset:]
    for offset in (-1, len(ODD) + 1, 2**63):
        with pytest.raises(OffsetOutOfRangeError) as error:
            await anext(aiter(chunks_of(worker, job.id, offset)))
        assert (error.value.first, error.value.end, error.value.offset) == (0, len(ODD), offset)


async def test_offsets_of_a_running_job_end_where_its_output_ends(worker: Worker, gate: Gate) -> None:
    """The present end can be followed from, beyond it is out of range; without follow a reader gets what is there."""
    job = await worker.start(shell(f"echo ready; read x < {gate.path}; echo more"), "ada")
    await said(worker, job)
    with pytest.raises(OffsetOutOfRangeError) as error:
        await anext(aiter(chunks_of(worker, job.id, 7)))
    assert error.value.end == 6
    assert [chunk.data async for chunk in chunks_of(worker, job.id, follow=False)] == [b"ready\n"]
    assert [chunk async for chunk in chunks_of(worker, job.id, 6, follow=False)] == []
    assert (await worker.get(job.id)).output_bytes == 6
    rest = asyncio.ensure_future(output_of(worker, job, 6))
    gate.open()
    assert await rest == b"more\n"


async def test_a_reader_that_does_not_follow_ends_even_if_the_job_never_stops_writing(worker: Worker) -> None:
    """It reads up to the size that it found, not after a moving end."""
    job = await worker.start(shell("echo ready; exec yes"), "ada")
    await said(worker, job)
    async with asyncio.timeout(LIMIT):
        data = [chunk.data async for chunk in chunks_of(worker, job.id, follow=False)]
    assert data
    await worker.stop(job.id, by="ada", grace=timedelta(0))


async def test_a_follow_of_an_ended_job_ends_at_once_and_costs_nothing(worker: Worker) -> None:
    """No waiting, no turning: a thousand follows of an ended job take a moment of processor time."""
    job = await worker.start(shell("echo x"), "ada")
    await worker.wait(job.id)
    before = time.process_time()
    for _ in range(1000):
        assert await output_of(worker, job) == b"x\n"
    assert time.process_time() - before < 10


async def test_150_followers_of_one_job_are_complete(worker: Worker, gate: Gate, odd_file: Path) -> None:
    """More than the kernel allows inotify instances a user: one serves all, and nobody misses a byte."""
    job = await worker.start(
        shell(f"echo ready; read x < {gate.path}; for i in 1 2 3 4 5; do cat {odd_file}; sleep 0.01; done"), "ada"
    )
    await said(worker, job)
    followers = [asyncio.ensure_future(output_of(worker, job)) for _ in range(150)]
    await until(lambda: open_files().count(str(worker_output(worker, job))) == 150)
    assert open_files().count("anon_inode:inotify") == 1
    gate.open()
    async with asyncio.timeout(60):
        assert set(await asyncio.gather(*followers)) == {b"ready\n" + ODD * 5}


def worker_output(worker: Worker, job: Job) -> Path:
    """The file of a job's output."""
    (directory,) = {Path(path).parent for path in open_files() if path.endswith("/jobs.db")}
    assert worker.info.executor == "local"
    return directory / "jobs" / job.id / "output"


async def test_a_follower_that_leaves_leaves_nothing(worker: Worker, gate: Gate) -> None:
    """Neither a descriptor nor a task, whether it waits, reads or has never begun, is closed or is cancelled."""
    job = await worker.start(shell(f"echo ready; read x < {gate.path}"), "ada")
    await said(worker, job)
    files, tasks = sorted(open_files()), asyncio.all_tasks()
    for _ in range(20):
        async with aclosing(chunks_of(worker, job.id)) as stream:
            await anext(stream)
        async with aclosing(chunks_of(worker, job.id)):
            pass
        waiting = asyncio.ensure_future(output_of(worker, job))
        await until(lambda: sorted(open_files()) != files)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    assert sorted(open_files()) == files
    assert asyncio.all_tasks() <= tasks
    gate.open()
    await worker.wait(job.id)


async def test_a_slow_follower_blocks_nobody(worker: Worker) -> None:
    """A job writes megabytes and ends while a follower sits at the first byte; it gets every byte later."""
    size = 20_000_000
    job = await worker.start(shell(f"echo ready; head -c {size} /dev/zero"), "ada")
    async with aclosing(chunks_of(worker, job.id)) as slow:
        data = (await anext(slow)).data
        ended = await worker.wait(job.id)
        assert ended.output_bytes == size + 6
        fast = await output_of(worker, job)
        async for chunk in slow:
            data += chunk.data
    assert data == fast
    assert len(data) == size + 6


async def test_a_follow_is_live_and_backlog_is_coalesced(worker: Worker, gate: Gate) -> None:
    """What is written arrives while the job waits; a backlog of many small writes arrives in large chunks."""
    job = await worker.start(
        shell(
            f"i=0; while [ $i -lt 2000 ]; do echo line; i=$((i+1)); done; echo ready; read x < {gate.path}; echo end"
        ),
        "ada",
    )
    await said(worker, job)
    async with aclosing(chunks_of(worker, job.id)) as stream:
        assert len((await anext(stream)).data) == 2000 * 5 + 6
        gate.open()
        assert (await anext(stream)).data == b"end\n"
        with pytest.raises(StopAsyncIteration):
            await anext(stream)


async def test_a_process_outside_the_job_that_holds_the_output_does_not_hold_up_the_end(
    worker: Worker, gate: Gate
) -> None:
    """Whoever opened the job's output from outside is not waited for, even if they never stop writing."""
    job = await worker.start(shell(f"echo $$; echo ready; read x < {gate.path}; exit 3"), "ada")
    pid = (await said(worker, job)).split()[0].decode()
    outsider = await asyncio.create_subprocess_exec("sh", "-c", f"exec yes > /proc/{pid}/fd/1")
    try:
        await said(worker, job, b"y\ny\n")
        gate.open()
        async with asyncio.timeout(LIMIT):
            ended = await worker.wait(job.id)
            data = await output_of(worker, job)
        assert ended.end is not None
        assert ended.end.exit_code == 3
        assert ended.output_bytes == len(data)
    finally:
        await outsider.wait()  # its pipe has no reader any more: SIGPIPE


async def test_removing_a_job_does_not_cut_off_its_reader(worker: Worker) -> None:
    """Who has begun to read reads to the end; who comes later finds no job."""
    job = await worker.start(shell("head -c 3000000 /dev/zero"), "ada")
    await worker.wait(job.id)
    async with aclosing(chunks_of(worker, job.id)) as stream:
        size = len((await anext(stream)).data)
        await worker.remove(job.id)
        async for chunk in stream:
            size += len(chunk.data)
    assert size == 3_000_000
    with pytest.raises(JobNotFoundError):
        await output_of(worker, job)


@needs_root
@pytest.mark.timeout(60)
@pytest.mark.parametrize("reserve", [0, 100_000])
def test_a_full_disk_stops_no_job(shared: Path, reserve: int) -> None:
    """What cannot be kept is a gap at its place; what comes once there is room is kept; a reserve is for records."""
    assert on_a_disk(shared / "disk", "-t tmpfs -o size=2m", "full_disk", str(reserve)) == "all is well"


@needs_root
@pytest.mark.timeout(60)
def test_the_newest_output_is_kept_where_no_holes_can_be_made(shared: Path) -> None:
    """In segments: the limit, the offsets, the index, what comes after a restart and compression are as elsewhere."""
    assert on_a_disk(shared / "disk", "-t ramfs", "no_holes") == "all is well"


def on_a_disk(folder: Path, options: str, program: str, *arguments: str) -> str:
    """The last line that a program of `tests.support` says with a file system of its own at a folder, which is new."""
    folder.mkdir()
    said = " ".join([sys.executable, "-m", f"tests.support.{program}", str(folder), *arguments])
    tried = subprocess.run(
        ["unshare", "-m", "sh", "-c", f"mount {options} none {folder} && exec {said}"],
        cwd=Path(__file__).parents[3],
        check=False,
        capture_output=True,
        text=True,
    )
    if "unshare failed" in tried.stderr or "mount:" in tried.stderr:
        pytest.skip(f"no file system can be mounted here: {tried.stderr.strip()}")
    assert tried.returncode == 0, tried.stderr
    assert not list(folder.iterdir())
    return tried.stdout.splitlines()[-1]
