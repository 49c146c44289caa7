"""Supervisors that stand by for jobs: with whom they end, and what becomes of a start when they die."""

from __future__ import annotations

import errno
import os
import resource
import signal
from contextlib import suppress
from pathlib import Path

import pytest

from jobworker.core.errors import CommandNotStartedError
from jobworker.core.spec import JobSpec
from jobworker.core.state import JobState
from jobworker.executors.standbys import COUNT
from jobworker.linux import process
from jobworker.worker import Worker
from tests.integration.worker.conftest import NewWorker, choose, needs_root
from tests.integration.worker.test_start import cgroup_of
from tests.support.polling import until
from tests.support.workers import Gate, gone, open_files, output_of, shell, supervisor_of, worker_process

FREE = ("stdin", "stdout", "stderr", "exits", "exits", "daemon")  # what a supervisor without a job has open


def named(name: str, ancestor: int) -> list[int]:
    """The processes of a name below another one."""
    found: list[int] = []
    for pid in process.descendants(ancestor):
        with suppress(OSError):
            if Path(f"/proc/{pid}/comm").read_text() == f"{name}\n":
                found.append(pid)
    return found


async def all_stand_by(ancestor: int) -> list[int]:
    """The supervisors below a process that stand by, as soon as there are all."""
    await until(lambda: len(named("jw-standby", ancestor)) == COUNT)
    return named("jw-standby", ancestor)


async def test_they_end_with_their_daemon_and_are_taken_for_no_jobs(
    tree: str, state_dir: Path, new_worker: NewWorker
) -> None:
    """Also when it is killed: no process and no group stays, and the next one clears their directories away."""
    with worker_process(state_dir, tree) as daemon:
        pids = await all_stand_by(daemon.process.pid)
        left = {path.name for path in (state_dir / "standby").iterdir()}
        daemon.kill()
    gone(pids)
    assert tree == "subreaper" or not [path for path in cgroup_of(state_dir).iterdir() if path.is_dir()]
    async with new_worker() as worker:
        assert not left & {path.name for path in (state_dir / "standby").iterdir()}
        assert worker.recovery.never_ran == []
        assert not (await worker.list()).jobs


async def test_they_end_when_the_worker_is_left(tree: str, state_dir: Path, new_worker: NewWorker) -> None:
    """Nothing of them stays, without a next worker."""
    async with new_worker() as worker:
        pids = await all_stand_by(os.getpid())
        assert worker.info.process_tracking == tree
    gone(pids)
    assert not list((state_dir / "standby").iterdir())


@pytest.mark.usefixtures("tree")
async def test_a_start_goes_on_without_those_that_have_died(worker: Worker) -> None:
    """Each job runs once."""
    for pid in await all_stand_by(os.getpid()):
        os.kill(pid, signal.SIGKILL)
    jobs = [await worker.start(shell("exit 3"), "ada") for _ in range(2 * COUNT)]
    ends = [(await worker.wait(job.id)).end for job in jobs]
    assert {end.exit_code for end in ends if end} == {3}
    assert {(await worker.get(job.id)).state for job in jobs} == {JobState.FINISHED}


async def test_a_start_that_fails_before_its_program_is_executed_leaves_nothing(
    worker: Worker, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither its directory nor its group."""
    choose("cgroup", monkeypatch)
    await all_stand_by(os.getpid())
    taken = {path.name for path in (state_dir / "standby").iterdir()}
    for job_id in taken:
        (state_dir / "standby" / job_id / "output").touch()  # which is the supervisor's to make
    with pytest.raises(CommandNotStartedError) as caught:
        await worker.start(shell("true"), "ada")
    assert (caught.value.errno, caught.value.stage) == (errno.EEXIST, "prepare")
    left = {path.name for path in cgroup_of(state_dir).iterdir() if path.is_dir()}
    assert len(taken & left) == COUNT - 1


async def test_a_start_that_finds_no_descriptor_says_so(worker: Worker) -> None:
    """Even if what stood by for it cannot be deleted without one; the next start is as any other."""
    await worker.wait((await worker.start(shell("true"), "ada")).id)
    await all_stand_by(os.getpid())
    free = os.dup(0)
    os.close(free)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        with pytest.raises(CommandNotStartedError) as caught:
            await worker.start(shell("true"), "ada")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert (caught.value.errno, caught.value.stage) == (errno.EMFILE, "supervise")
    await worker.wait((await worker.start(shell("true"), "ada")).id)
    assert len((await worker.list()).jobs) == 2


async def test_a_group_that_a_supervisor_has_left_goes_with_its_job(
    worker: Worker, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as that of one which was killed when it had recorded the end."""
    choose("cgroup", monkeypatch)
    job = await worker.start(shell("true"), "ada")
    await worker.wait(job.id)
    group = cgroup_of(state_dir) / job.id
    await until(lambda: not group.is_dir())  # its supervisor is just removing it
    group.mkdir()
    await worker.remove(job.id)
    assert not group.exists()


async def test_nothing_is_left_of_those_that_have_died_free(tree: str, worker: Worker, state_dir: Path) -> None:
    """Their directories and groups go, their descriptors are closed, and others stand by instead."""
    assert worker.info.process_tracking == tree
    await all_stand_by(os.getpid())
    before = descriptors()
    for _ in range(2):
        dead = {path.name for path in (state_dir / "standby").iterdir()}
        pids = await all_stand_by(os.getpid())
        for pid in pids:
            with suppress(ProcessLookupError):  # with its supervisor
                os.kill(pid, signal.SIGKILL)
        gone(pids)
        await worker.wait((await worker.start(shell("true"), "ada")).id)
        await until(lambda dead=dead: not dead & left_of_standbys(state_dir, tree))
    await all_stand_by(os.getpid())
    await until(lambda: descriptors() <= before)


@needs_root
async def test_a_supervisor_runs_one_job_after_the_other(
    worker: Worker, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each as if it were the first, with its own output and end; nothing of those before is left open."""
    choose("cgroup", monkeypatch)
    await all_stand_by(os.getpid())
    supervisors: list[int] = []
    for number in range(4 * COUNT):
        job = await worker.start(shell(f"echo {number}; read x <{gate.path}; exit {number}"), "ada")
        supervisors.append(supervisor_of(job.id))
        gate.open()
        ended = await worker.wait(job.id)
        assert ended.end is not None
        assert ended.end.exit_code == number
        assert await output_of(worker, job) == f"{number}\n".encode()
    assert len(set(supervisors)) <= 2 * COUNT
    await until(lambda: {len(open_files(pid)) for pid in named("jw-free", os.getpid())} == {len(FREE)})


async def test_a_supervisor_that_has_read_a_large_command_ends_with_its_job(
    worker: Worker, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python would keep the memory that the command has taken."""
    choose("cgroup", monkeypatch)
    spec = JobSpec(argv=("sh", "-c", f"read x <{gate.path}"), env={"LARGE": "x" * 100_000})
    job = await worker.start(spec, "ada")
    supervisor = supervisor_of(job.id)
    gate.open()
    await worker.wait(job.id)
    gone([supervisor])


@needs_root
async def test_a_supervisor_that_its_job_could_change_ends_with_it(
    new_worker: NewWorker, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of the same user: it may have made its parent's limits and priority those of the next job."""
    choose("cgroup", monkeypatch)
    async with new_worker(job_user="root") as worker:
        job = await worker.start(shell(f"prlimit --pid $PPID --nofile=30:30; read x <{gate.path}"), "ada")
        supervisor = supervisor_of(job.id)
        gate.open()
        await worker.wait(job.id)
        gone([supervisor])


def descriptors() -> int:
    """How many there are, but for the connections of supervisors that are free."""
    return len(list(Path("/proc/self/fd").iterdir())) - len(named("jw-free", os.getpid()))


def left_of_standbys(state_dir: Path, tree: str) -> set[str]:
    """Names of what is there for those that stand by."""
    folders = [state_dir / "standby", *([cgroup_of(state_dir)] if tree == "cgroup" else [])]
    return {path.name for folder in folders for path in folder.iterdir() if path.is_dir()}
