"""What survives whom: daemons, supervisors and spawners that are killed at bad moments."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import uuid
from collections.abc import Callable
from contextlib import aclosing, suppress
from datetime import timedelta
from pathlib import Path

import pytest

from jobworker.core.errors import JobEndedError
from jobworker.core.output import Chunk
from jobworker.core.query import JobFilter
from jobworker.core.spec import JobSpec
from jobworker.core.state import Cause, JobState
from jobworker.linux import process
from jobworker.worker import Worker
from tests.integration.worker.conftest import NewWorker
from tests.support.polling import until, until_job
from tests.support.workers import Gate, gone, job_pids, output_of, said, shell, supervisor_of, worker_process

NOW = timedelta(0)


async def own_spawner() -> int:
    """The spawner of the worker in this process; a start asks for one if there is none, or it is just coming up."""
    return await until(_own_spawner)


def _own_spawner() -> int | None:
    for child in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
        with suppress(FileNotFoundError, ProcessLookupError):  # it has just died
            if Path(f"/proc/{child}/comm").read_text() == "jw-spawner\n":
                return int(child)
    return None


async def test_a_job_outlives_its_daemon(tree: str, state_dir: Path, new_worker: NewWorker, gate: Gate) -> None:
    """Kill -9 of the daemon in the middle of a job: the next one adopts it; output complete, exit code kept."""
    script = f"for i in 1 2 3; do echo tick $i; read x < {gate.path}; done; echo done; exit 42"
    with worker_process(state_dir, tree) as daemon:
        job_id = daemon.call("start", argv=["sh", "-c", script], labels={"k": "v"}, request_id=str(uuid.uuid4()))
        daemon.call("said", job_id=job_id, wanted="tick 1\n")
        daemon.kill()
    gate.open()  # while nobody looks
    async with new_worker() as worker:
        assert worker.recovery.adopted == [job_id]
        job = await worker.get(job_id)
        assert (job.state, job.owner, job.spec.labels) == (JobState.RUNNING, "ada", {"k": "v"})
        await said(worker, job, b"tick 2\n")
        gate.open()
        await said(worker, job, b"tick 3\n")
        rest = asyncio.ensure_future(output_of(worker, job, 7))
        gate.open()
        ended = await worker.wait(job_id)
        assert ended.end is not None
        assert (ended.end.cause, ended.end.exit_code) == (Cause.EXITED, 42)
        assert await rest == b"tick 2\ntick 3\ndone\n"
        assert ended.start_time == job.start_time


async def test_a_job_ends_without_a_daemon(tree: str, state_dir: Path, new_worker: NewWorker, gate: Gate) -> None:
    """Its end, and a time limit's, are recorded all the same, and found by the next daemon."""
    with worker_process(state_dir, tree) as daemon:
        job_id = daemon.call("start", argv=["sh", "-c", f"echo ready; read x < {gate.path}; echo last; exit 7"])
        daemon.call("said", job_id=job_id, wanted="ready\n")
        supervisor = supervisor_of(job_id)
        daemon.kill()
    gate.open()
    gone([supervisor])
    async with new_worker() as worker:
        assert worker.recovery.ended == [job_id]
        job = await worker.get(job_id)
        assert job.end is not None
        assert (job.end.exit_code, job.output_bytes) == (7, 11)
        assert await output_of(worker, job) == b"ready\nlast\n"


async def test_a_stop_under_way_is_finished_whatever_becomes_of_the_daemon(
    tree: str, state_dir: Path, new_worker: NewWorker
) -> None:
    """A daemon killed between TERM and kill: the next one says that a stop is under way, by whom; and it comes."""
    deaf = "trap 'echo deaf' TERM; echo ready; while :; do sleep 0.01; done"
    with worker_process(state_dir, tree) as daemon:
        job_id = daemon.call("start", argv=["sh", "-c", deaf])
        daemon.call("said", job_id=job_id, wanted="ready\n")
        daemon.call("begin_stop", job_id=job_id, by="bob", grace=3600)
        daemon.call("said", job_id=job_id, wanted="deaf\n")
        daemon.kill()
    async with new_worker() as worker:
        job = await worker.get(job_id)
        assert job.state is JobState.RUNNING
        assert job.stop is not None
        assert (job.stop.requested_by, job.stop.grace) == ("bob", timedelta(hours=1))
        stopped = await worker.stop(job_id, by="eve", grace=NOW)
        assert stopped.stop == job.stop, "a second stop hurries the first one, whose stop it is"


async def test_a_stop_comes_to_its_kill_while_no_daemon_is_there(
    tree: str, state_dir: Path, new_worker: NewWorker
) -> None:
    """The supervisor kills after the grace on its own."""
    with worker_process(state_dir, tree) as daemon:
        job_id = daemon.call("start", argv=["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.01; done"])
        daemon.call("said", job_id=job_id, wanted="ready\n")
        supervisor = supervisor_of(job_id)
        daemon.call("begin_stop", job_id=job_id, by="bob", grace=0.3)
        daemon.kill()
    gone([supervisor])
    async with new_worker() as worker:
        job = await worker.get(job_id)
        assert job.state is JobState.STOPPED
        assert job.stop is not None
        assert job.stop.requested_by == "bob"


LOSABLE = "echo ready; setsid sleep 4261 & (setsid sh -c 'sleep 4262 & wait' &); sleep 4263 & echo two; sleep 4264"


async def test_a_job_whose_supervisor_is_killed_is_lost_and_its_processes_are_gone(tree: str, worker: Worker) -> None:
    """LOST at once, whatever its processes did to get away; the output so far can be read; the next job is well."""
    job = await worker.start(shell(LOSABLE), "ada")
    await said(worker, job, b"two\n")
    await until(lambda: len(job_pids(job.id)) == 6)
    pids = job_pids(job.id)
    assert worker.info.process_tracking == tree
    following = asyncio.ensure_future(output_of(worker, job))
    os.kill(supervisor_of(job.id), signal.SIGKILL)
    lost = await worker.wait(job.id)
    assert lost.state is JobState.LOST
    assert lost.end is not None
    assert (lost.end.exit_code, lost.end.signal, lost.end.output_bytes) == (None, None, 10)
    gone(pids)
    assert await following == b"ready\ntwo\n" == await output_of(worker, job)
    with pytest.raises(JobEndedError, match="already lost"):
        await worker.stop(job.id, by="ada")
    assert (await worker.wait((await worker.start(shell("exit 3"), "ada")).id)).state is JobState.FINISHED


async def test_a_supervisor_that_is_killed_while_no_daemon_is_there(
    tree: str, state_dir: Path, new_worker: NewWorker
) -> None:
    """The next daemon finds the job LOST, ends its processes and knows its output."""
    with worker_process(state_dir, tree) as daemon:
        job_id = daemon.call("start", argv=["sh", "-c", LOSABLE])
        daemon.call("said", job_id=job_id, wanted="two\n")
        await until(lambda: len(job_pids(job_id)) == 6)
        daemon.kill()
    pids = job_pids(job_id)
    supervisor = supervisor_of(job_id)
    os.kill(supervisor, signal.SIGKILL)
    gone([supervisor])
    async with new_worker() as worker:
        lost = await worker.wait(job_id)
        assert lost.state is JobState.LOST
        gone(pids)
        assert await output_of(worker, job_id) == b"ready\ntwo\n"


async def test_a_supervisor_and_its_burial_may_die_in_the_middle_of_a_stop(tree: str, worker: Worker) -> None:
    """A lost job says who had asked for its stop; the waiting stop is told that the job is lost."""
    job = await worker.start(shell("trap '' TERM; echo ready; while :; do sleep 0.01; done"), "ada")
    await said(worker, job)
    stop = asyncio.ensure_future(worker.stop(job.id, by="bob", grace=timedelta(hours=1)))
    await until_job(worker.get, job.id, lambda job: job.stop)
    os.kill(supervisor_of(job.id), signal.SIGKILL)
    with pytest.raises(JobEndedError, match="already lost"):
        await stop
    lost = await worker.get(job.id)
    assert lost.stop is not None
    assert (lost.state, lost.stop.requested_by) == (JobState.LOST, "bob")
    assert worker.info.process_tracking == tree


@pytest.mark.usefixtures("tree")
def kill_idle(supervisors: set[int]) -> None:
    """Those of this process that have no job, and those of some others, which spawners that are dead have left."""
    for pid in {*process.descendants(os.getpid()), *supervisors}:
        with suppress(OSError):
            if Path(f"/proc/{pid}/comm").read_text() in {"jw-free\n", "jw-standby\n"}:
                os.kill(pid, signal.SIGKILL)


async def kill_spawner() -> set[int]:
    """Kill the spawner of this process; the supervisors that it leaves."""
    spawner = await own_spawner()
    os.kill(spawner, signal.SIGSTOP)  # so that it leaves no others
    await until(lambda: "State:\tT" in Path(f"/proc/{spawner}/status").read_text())
    left = {*process.descendants(spawner)}
    os.kill(spawner, signal.SIGKILL)
    return left


async def test_a_spawner_may_die_at_any_time(worker: Worker, new_gate: Callable[[], Gate]) -> None:
    """Running jobs are unharmed; starts that are under way succeed with the next spawner, each once."""
    gate = new_gate()
    before = await worker.start(shell(f"echo ready; read x < {gate.path}; exit 11"), "ada")
    await said(worker, before)
    left: set[int] = set()
    for _ in range(5):
        kill_idle(left)  # else nobody needs a spawner
        starts = [asyncio.ensure_future(worker.start(shell("echo once"), "ada")) for _ in range(8)]
        await asyncio.sleep(0)  # let them begin
        left |= await kill_spawner()
        jobs = await asyncio.gather(*starts)
        for job in jobs:
            ended = await worker.wait(job.id)
            assert ended.state is JobState.FINISHED
            assert await output_of(worker, job) == b"once\n"
    gate.open()
    ended = await worker.wait(before.id)
    assert ended.end is not None
    assert ended.end.exit_code == 11
    assert len((await worker.list()).jobs) == 41


async def test_a_start_that_was_not_answered_runs_once_or_never(
    tree: str, state_dir: Path, new_worker: NewWorker, shared: Path
) -> None:
    """A daemon killed at any moment of a start: a retry with its request id never runs the command twice."""
    request_ids: list[str] = []
    for moment in range(6):
        request_id = str(uuid.uuid4())
        request_ids.append(request_id)
        with worker_process(state_dir, tree) as daemon:
            script = f"echo {request_id} >> {shared}/runs"
            daemon.send("start", argv=["sh", "-c", script], request_id=request_id)
            seen = 0
            while seen < moment and daemon.process.poll() is None:
                seen = progress_of(state_dir, request_id)
                if seen >= moment:
                    break
                await asyncio.sleep(0)  # looks as often as it can, so that the kill comes at this moment
            daemon.kill()
    async with new_worker() as worker:
        assert not worker.recovery.unreadable
        for request_id in request_ids:
            script = f"echo {request_id} >> {shared}/runs"
            job = await worker.start(JobSpec(argv=("sh", "-c", script)), "ada", request_id)
            await worker.wait(job.id)
        runs = (shared / "runs").read_text().split()
        for request_id in request_ids:
            (job,) = [job for job in (await worker.list()).jobs if job.request_id == request_id]
            assert runs.count(request_id) == 1 or (job.state is JobState.LOST and runs.count(request_id) <= 1)
        assert len((await worker.list()).jobs) == len(request_ids)
        assert len(list((state_dir / "jobs").iterdir())) == len(request_ids)


def progress_of(state_dir: Path, request_id: str) -> int:
    """How far a start has come, 0 (not begun) to 5 (ended), as its directory shows."""
    jobs = state_dir / "jobs"
    for directory in jobs.iterdir() if jobs.exists() else ():
        records = directory / "records"
        if not records.exists():
            continue
        if request_id in (found := records.read_text()):
            files = sum((directory / name).exists() for name in ("control", "output"))
            return 1 + files + sum(f'{{"{kind}":' in found for kind in ("started", "exit"))
    return 0


async def test_the_index_is_built_anew_from_the_directories(
    tree: str, state_dir: Path, new_worker: NewWorker, gate: Gate
) -> None:
    """Without its database a daemon knows every job, running or ended, with owner, labels, request id and end."""
    request_id = str(uuid.uuid4())
    async with new_worker() as worker:
        spec = JobSpec(argv=("sh", "-c", "echo x; exit 9"), labels={"a": "b"}, name="n", env={"K": "\udcff"})
        ended = await worker.wait((await worker.start(spec, "ada", request_id)).id)
        stopped = await worker.start(shell("sleep 4265"), "bob")
        stopped = await worker.stop(stopped.id, by="eve")
        running = await worker.start(shell(f"echo ready; read x < {gate.path}"), "bob")
        await said(worker, running)
    for path in state_dir.glob("jobs.db*"):
        path.unlink()
    async with new_worker() as worker:
        assert await worker.get(ended.id) == ended
        assert await worker.get(stopped.id) == stopped
        assert (await worker.get(running.id)).state is JobState.RUNNING
        assert [job.id for job in (await worker.list(JobFilter(labels={"a": "b"}))).jobs] == [ended.id]
        assert {job.id for job in (await worker.list(JobFilter(owner="bob"))).jobs} == {stopped.id, running.id}
        assert (await worker.start(spec, "ada", request_id)).id == ended.id
        assert worker.info.process_tracking == tree
        gate.open()
        assert (await worker.wait(running.id)).state is JobState.FINISHED


async def test_records_that_cannot_be_read_are_reported_and_left_alone(state_dir: Path, new_worker: NewWorker) -> None:
    """One damaged job keeps no daemon from starting and no other job from being known; its files stay."""
    begin = b'{"spec": {"job": {"id": "x", "owner": "o", "create_time": '
    start = begin + b'"2026-01-01T00:00:00Z", "spec": '
    contents = {
        "damaged": b"{",
        "empty": b"",
        "list": b"[]",
        "no record": b'{"spec": []}',
        "nothing": b'{"spec": {}}',
        "other": b'{"exit": {}}',
        "wrong spec": start + b'{"argv": []}}}}',
        "wrong type": start + b'{"argv": ["a"], "cwd": 5}}}}',
        "wrong time": begin + b'"yesterday", "spec": {"argv": ["a"]}}}}',
        "wrong record": b'{"spec": {"job": 5}}',
        "wrong policy": start + b'{"argv": ["a"], "child_policy": "?"}}}}',
    }
    async with new_worker() as worker:
        good = await worker.start(shell("exit 3"), "ada")
        await worker.wait(good.id)
    damaged: dict[Path, bytes | None] = {}
    for content in (*contents.values(), None):
        directory = state_dir / "jobs" / str(uuid.uuid4())
        directory.mkdir()
        (directory / "output").write_bytes(b"precious")
        if content is not None:
            (directory / "records").write_bytes(content + b"\n")
        damaged[directory] = content
    (state_dir / "jobs" / "README").write_text("no job")
    async with new_worker() as worker:
        assert worker.recovery.unreadable.keys() == {path.name for path in damaged}
        assert all(worker.recovery.unreadable.values())
        assert [job.id for job in (await worker.list()).jobs] == [good.id]
        assert (await worker.wait((await worker.start(shell("exit 4"), "ada")).id)).state is JobState.FINISHED
    for directory, content in damaged.items():
        assert (directory / "output").read_bytes() == b"precious"
        assert content is None or (directory / "records").read_bytes() == content + b"\n"
    assert (state_dir / "jobs" / "README").exists()


async def test_a_directory_without_a_spec_is_a_start_that_never_was(state_dir: Path, new_worker: NewWorker) -> None:
    """A daemon killed between making a directory and writing its spec leaves nothing for the next one to keep."""
    directory = state_dir / "jobs" / str(uuid.uuid4())
    directory.mkdir(parents=True)
    (directory / "records").write_text('{"spec": {')
    (state_dir / "removed" / "half").mkdir(parents=True)
    async with new_worker() as worker:
        assert worker.recovery.never_ran == [directory.name]
    assert not directory.exists()
    assert not list((state_dir / "removed").iterdir())


async def test_after_a_reboot_jobs_are_lost_and_no_process_is_touched(
    tree: str, state_dir: Path, new_worker: NewWorker
) -> None:
    """The pids of an earlier boot are somebody else's: even processes that look like the job's are left alone."""
    with worker_process(state_dir, tree) as daemon:
        job_id = daemon.call("start", argv=["sh", "-c", "setsid sleep 4266 & echo ready; exec sleep 4267"])
        daemon.call("said", job_id=job_id, wanted="ready\n")
        daemon.kill()
    supervisor = supervisor_of(job_id)
    os.kill(supervisor, signal.SIGKILL)
    gone([supervisor])
    await until(lambda: len(job_pids(job_id)) == 1)  # the kernel kills the first process in a moment
    (survivor,) = job_pids(job_id)
    records = state_dir / "jobs" / job_id / "records"
    spec, rest = records.read_bytes().split(b"\n", 1)
    record = json.loads(spec)
    record["spec"]["launch"]["boot_id"] = "00000000-0000-0000-0000-000000000000"
    records.write_bytes(json.dumps(record).encode() + b"\n" + rest)
    try:
        async with new_worker() as worker:
            lost = await worker.wait(job_id)
            assert lost.state is JobState.LOST
            assert await output_of(worker, job_id) == b"ready\n"
        assert job_pids(job_id) == [survivor]
    finally:
        os.kill(survivor, signal.SIGKILL)
        gone([survivor])


async def test_a_job_whose_directory_is_gone_is_forgotten(state_dir: Path, new_worker: NewWorker) -> None:
    """The directories are the truth: a row without one goes."""
    async with new_worker() as worker:
        job = await worker.start(shell("true"), "ada")
        await worker.wait(job.id)
    shutil.rmtree(state_dir / "jobs" / job.id)
    async with new_worker() as worker:
        assert worker.recovery.forgotten == [job.id]
        assert not (await worker.list()).jobs


async def test_a_supervisor_that_is_frozen_holds_up_no_start(
    monkeypatch: pytest.MonkeyPatch, new_worker: NewWorker, gate: Gate
) -> None:
    """A daemon waits a bounded time for a supervisor that does not answer, adopts its job, and sees it end later."""
    monkeypatch.setattr("jobworker.executors.local.HELLO_PATIENCE", 0.1)
    async with new_worker() as worker:
        job = await worker.start(shell(f"echo ready; read x < {gate.path}; exit 12"), "ada")
        await said(worker, job)
    supervisor = supervisor_of(job.id)
    os.kill(supervisor, signal.SIGSTOP)
    try:
        async with new_worker() as worker:
            assert worker.recovery.adopted == [job.id]
            assert (await worker.get(job.id)).start_time == job.start_time
            os.kill(supervisor, signal.SIGCONT)
            gate.open()
            ended = await worker.wait(job.id)
            assert ended.end is not None
            assert ended.end.exit_code == 12
    finally:
        with suppress(ProcessLookupError):  # it is gone, unless something went wrong
            os.kill(supervisor, signal.SIGCONT)


async def test_followers_of_an_adopted_job_get_backlog_and_live_output_as_one(
    state_dir: Path, new_worker: NewWorker, gate: Gate
) -> None:
    """Output written under the old daemon and under the new one is one sequence of bytes."""
    with worker_process(state_dir, "subreaper") as daemon:
        job_id = daemon.call("start", argv=["sh", "-c", f"echo old; read x < {gate.path}; echo new"])
        daemon.call("said", job_id=job_id, wanted="old\n")
        daemon.kill()
    async with new_worker() as worker, aclosing(worker.stream(job_id)) as stream:
        assert await anext(stream) == Chunk(offset=0, data=b"old\n")
        gate.open()
        assert await anext(stream) == Chunk(offset=4, data=b"new\n")
