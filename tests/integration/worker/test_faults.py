"""Starts that are cut off in the middle, stores that fail, and retention."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import uuid
from collections.abc import Generator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from jobworker.core.errors import CommandNotStartedError, StoreError
from jobworker.core.job import Job, StopRequest
from jobworker.core.query import JobFilter
from jobworker.core.spec import JobSpec
from jobworker.core.state import JobState
from jobworker.executors.local import START_ATTEMPTS, LocalExecutor, LocalSettings
from jobworker.linux import process
from jobworker.store.sqlite import SqliteStore
from jobworker.worker import Retention, Worker, local_worker
from jobworker.worker import running as running_module
from tests.integration.worker.conftest import NewWorker, choose
from tests.integration.worker.test_start import cgroup_of
from tests.support.jobs import accepted_job
from tests.support.polling import until
from tests.support.workers import Gate, job_pids, output_of, said, shell, supervisor_of

# A start that hangs between its output file and the execution of its program, at will: the job is born frozen.


class Frost:
    """The cgroup of the jobs of a directory, which can be frozen and thawed."""

    def __init__(self, group: Path) -> None:
        self._file = group / "cgroup.freeze"

    def freeze(self) -> None:
        """Have jobs be born frozen."""
        self._file.write_text("1")

    def thaw(self) -> None:
        """Let them go on."""
        with suppress(FileNotFoundError):
            self._file.write_text("0")


@pytest.fixture
def frost(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Frost]:
    """The frost of the test's state directory, thawed in the end."""
    choose("cgroup", monkeypatch)
    frost = Frost(cgroup_of(state_dir))
    yield frost
    frost.thaw()


async def launching(state_dir: Path) -> str:
    """The id of the job whose program is about to be executed: a process is in its group, which is frozen."""
    groups = cgroup_of(state_dir)
    found = await until(lambda: [group for group in groups.iterdir() if group.is_dir() and leader_of(group)])
    return found[0].name


def leader_of(group: Path) -> str:
    """The pid of the process in a group that has one."""
    return (group / "cgroup.procs").read_text().strip()


async def test_a_supervisor_that_dies_while_it_starts_a_job_has_lost_it(
    worker: Worker, state_dir: Path, frost: Frost
) -> None:
    """The program may have run: the job is LOST, no process is left, and its request id starts no second one."""
    request_id = str(uuid.uuid4())
    await worker.wait((await worker.start(shell("true"), "ada")).id)  # what the spawner does before a job is over
    frost.freeze()
    start = asyncio.ensure_future(worker.start(shell("echo x"), "ada", request_id))
    supervisor = supervisor_of(await launching(state_dir))
    os.kill(supervisor, signal.SIGKILL)
    frost.thaw()
    job = await start
    lost = await worker.wait(job.id)
    assert lost.state is JobState.LOST
    assert await output_of(worker, job) == b""
    assert (await worker.start(shell("echo x"), "ada", request_id)).id == job.id
    assert not job_pids(job.id)
    assert not (cgroup_of(state_dir) / job.id).exists()
    assert (await worker.wait((await worker.start(shell("exit 2"), "ada")).id)).state is JobState.FINISHED


def is_running(pid: int) -> bool:
    """Whether a process has neither been stopped nor ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "TZX"
    except OSError:
        return False


async def test_a_start_that_no_supervisor_takes_up_fails_and_is_never_run(
    worker: Worker, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a while, here a short one. The request may reach a supervisor later, which then finds nothing to run."""
    await worker.start(shell("true"), "ada")
    spawners = process.descendants(os.getpid())
    monkeypatch.setattr("jobworker.executors.local.START_PATIENCE", 0.1)
    monkeypatch.setattr("jobworker.executors.supervisors.END_PATIENCE", 0.1)
    for pid in spawners:
        with suppress(ProcessLookupError):  # the supervisor of the first job, which has ended
            os.kill(pid, signal.SIGSTOP)
            while is_running(pid):
                pass
    try:
        with pytest.raises(CommandNotStartedError) as caught:
            await worker.start(shell(f"touch {state_dir.parent}/ran"), "ada")
    finally:
        for pid in spawners:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
    assert caught.value.errno == errno.ETIMEDOUT
    monkeypatch.undo()
    for _ in range(8):  # as many as would take a request that was left
        await worker.wait((await worker.start(shell("true"), "ada")).id)
    assert not (state_dir.parent / "ran").exists()
    assert len((await worker.list()).jobs) == 9


async def test_a_start_outlives_the_spawners_that_are_killed(state_dir: Path) -> None:
    """However many: each is replaced, and the start goes on waiting."""
    state_dir.mkdir()
    async with LocalExecutor.open(LocalSettings(directory=state_dir)) as executor:
        spawner = executor._spawner  # pyright: ignore[reportPrivateUsage] - it has to be killed as soon as it is there
        start = asyncio.ensure_future(executor.start(accepted_job(spec=shell("exit 3"))))
        killed = {0}
        while len(killed) <= 3 * START_ATTEMPTS and not start.done():
            if spawner.pid not in killed:
                os.kill(spawner.pid, signal.SIGKILL)
                killed.add(spawner.pid)
            await asyncio.sleep(0)  # looks as often as it can, so that each dies as soon as it is there
        assert (await (await start).outcome()).end.exit_code == 3


async def test_a_spawner_that_cannot_start_fails_a_start(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At once, and nothing is left."""
    monkeypatch.setattr("jobworker.executors.spawner._CODE", "raise SystemExit(1)")
    state_dir.mkdir()
    async with LocalExecutor.open(LocalSettings(directory=state_dir)) as executor:
        with pytest.raises(CommandNotStartedError) as caught:
            await executor.start(accepted_job(spec=shell("true")))
        assert (caught.value.stage, caught.value.errno) == ("supervise", errno.EIO)
        assert await executor.known_ids() == set()


async def test_a_start_that_is_cancelled_in_the_executor_leaves_nothing(state_dir: Path, frost: Frost) -> None:
    """Whoever cancels it, before or after the program runs, gets nothing: no process, no directory, no cgroup."""
    state_dir.mkdir()
    async with LocalExecutor.open(LocalSettings(directory=state_dir)) as executor:
        first = accepted_job(spec=shell("true"))  # what the spawner does before it is over
        await (await executor.start(first)).outcome()
        await executor.remove(first.id)
        frost.freeze()
        start = asyncio.ensure_future(executor.start(accepted_job(spec=shell("sleep 4271"))))
        job_id = await launching(state_dir)
        start.cancel()
        await asyncio.sleep(0)  # one turn of the loop, so that it knows
        frost.thaw()
        with pytest.raises(asyncio.CancelledError):
            await start
        assert not job_pids(job_id)
        assert await executor.known_ids() == set()
        frost.freeze()
        start = asyncio.ensure_future(executor.start(accepted_job(spec=shell("sleep 4273"))))
        job_id = await launching(state_dir)
        leader = leader_of(cgroup_of(state_dir) / job_id)
        frost.thaw()
        while Path(f"/proc/{leader}/comm").read_text() != "sh\n":
            pass  # without the loop, which must not see yet that the program runs
        start.cancel()
        with pytest.raises(asyncio.CancelledError):
            await start
        assert not job_pids(job_id)
        assert await executor.known_ids() == set()
        for steps in range(40):  # at every await of a start that does not hang
            start = asyncio.ensure_future(executor.start(accepted_job(spec=shell("sleep 4272"))))
            for _ in range(steps):
                await asyncio.sleep(0)  # one turn of the loop
            if not start.cancel():  # it was faster
                now = StopRequest(requested_by="ada", request_time=datetime.now(UTC), grace=timedelta(0))
                await start.result().request_stop(now)
                await start.result().outcome()
                break
            with suppress(asyncio.CancelledError):
                pytest.fail(f"started: {await start}")
            assert await executor.known_ids() == set(), steps


class FailingStore(SqliteStore):
    """A store that refuses to write.

    A wrapper, since its real causes (a full disk, a lost file system) would hit the job directories as well, and root
    ignores permissions.
    """

    refused: frozenset[str] = frozenset()

    def _refuse(self, what: str) -> None:
        if what in self.refused:
            raise StoreError(f"cannot {what}")

    async def put(self, job: Job) -> None:
        """Remember a job."""
        self._refuse("put")
        await super().put(job)

    async def remove(self, job_id: str) -> None:
        """Forget a job."""
        self._refuse("remove")
        await super().remove(job_id)


class Failing:
    """A worker on a store that can be made to fail."""

    def __init__(self, worker: Worker, store: FailingStore) -> None:
        self.worker = worker
        self.store = store


@pytest.fixture
async def failing(state_dir: Path, monkeypatch: pytest.MonkeyPatch):  # noqa: ANN201 - an async generator of Failing
    """Such a worker, which tries again at once."""
    monkeypatch.setattr(running_module, "RETRY", 0.01)
    state_dir.mkdir()
    async with (
        await FailingStore.open(state_dir / "jobs.db") as store,
        LocalExecutor.open(LocalSettings(directory=state_dir)) as executor,
        Worker(executor, store, durability="process") as worker,
    ):
        yield Failing(worker, store)


async def test_while_a_job_cannot_be_remembered_no_other_one_is_started(
    failing: Failing, state_dir: Path, shared: Path
) -> None:
    """What was under way runs on, since its directory has it; a later start is refused, and leaves nothing."""
    request_id = str(uuid.uuid4())
    spec = JobSpec(argv=("sleep", "4273"))
    failing.store.refused = frozenset({"put"})
    job = await failing.worker.start(spec, "ada", request_id)
    with pytest.raises(StoreError, match="cannot put"):
        await failing.worker.start(shell(f"touch {shared}/ran"), "ada")
    assert not (shared / "ran").exists()
    assert [path.name for path in (state_dir / "jobs").iterdir()] == [job.id]
    assert (await failing.worker.get(job.id)).state is JobState.RUNNING
    assert (await failing.worker.get(job.id, owner="ada")).id == job.id
    assert (await failing.worker.start(spec, "ada", request_id)).id == job.id
    failing.store.refused = frozenset()

    async def listed() -> Sequence[Job]:
        return (await failing.worker.list()).jobs

    assert [one.id for one in await until(listed)] == [job.id]
    assert (await failing.worker.start(spec, "ada", request_id)).id == job.id
    await failing.worker.wait((await failing.worker.start(shell("true"), "ada")).id)
    stopped = await failing.worker.stop(job.id, by="ada")
    assert stopped.state is JobState.STOPPED
    assert failing.worker._running._counts._by_owner.total() == 0  # pyright: ignore[reportPrivateUsage] - nothing shows it


async def test_a_job_that_ends_before_it_could_be_remembered_is_remembered_with_its_end(failing: Failing) -> None:
    """Nothing is lost of a job that the store took too late: lists have it as soon as the store works again."""
    failing.store.refused = frozenset({"put"})
    job = await failing.worker.start(shell("exit 3"), "ada")
    ended = await failing.worker.wait(job.id)
    assert (await failing.worker.get(job.id, owner="ada")).id == job.id
    failing.store.refused = frozenset()

    async def listed() -> Sequence[Job]:
        return (await failing.worker.list(JobFilter(states=frozenset({JobState.FINISHED})))).jobs

    assert await until(listed) == (ended,)


async def test_an_end_is_told_even_if_the_store_cannot_remember_it_yet(failing: Failing, gate: Gate) -> None:
    """The directory has it, so waiting callers get it; lists have it as soon as the store works again."""
    job = await failing.worker.start(shell(f"echo ready; read x < {gate.path}; exit 3"), "ada")
    await said(failing.worker, job)
    failing.store.refused = frozenset({"put"})
    gate.open()
    ended = await failing.worker.wait(job.id)
    assert ended.end is not None
    assert await failing.worker.get(job.id) == ended
    assert await output_of(failing.worker, job) == b"ready\n"
    failing.store.refused = frozenset()

    async def listed() -> Sequence[Job]:
        return (await failing.worker.list(JobFilter(states=frozenset({JobState.FINISHED})))).jobs

    assert await until(listed) == (ended,)  # it tries again in the background


async def until_listed(worker: Worker, count: int) -> None:
    """Wait until so many jobs are left: they are removed in the background."""

    async def listed() -> bool:
        return len((await worker.list()).jobs) == count

    await until(listed)


async def test_retention_by_age_and_by_size(new_worker: NewWorker, state_dir: Path, gate: Gate) -> None:
    """Old ended jobs go, and the oldest of the others while there is too much output; running ones count and stay."""
    async with new_worker() as worker:
        ids: list[str] = []
        for size in (100, 5000, 200, 300):
            job = await worker.start(JobSpec(argv=("head", "-c", str(size), "/dev/zero")), "ada")
            await worker.wait(job.id)
            ids.append(job.id)
        running = await worker.start(shell(f"head -c 9000 /dev/zero; echo ready; read x < {gate.path}"), "ada")
        await said(worker, running)
    async with new_worker(retention=Retention(age=timedelta(days=1), total_bytes=9606)) as worker:
        left = {running.id, ids[2], ids[3]}
        await until(lambda: {path.name for path in (state_dir / "jobs").iterdir()} == left)
        await until_listed(worker, 3)
        assert {job.id for job in (await worker.list()).jobs} == left
    before = datetime.now(UTC)
    async with new_worker(retention=Retention(age=timedelta(0))) as worker:
        await until_listed(worker, 1)
        assert [path.name for path in (state_dir / "jobs").iterdir()] == [running.id]
        gate.open()
        end = (await worker.wait(running.id)).end
        assert end is not None
        assert before <= end.end_time
        await worker.remove(running.id)


async def test_durability_against_a_power_cut_is_a_setting(new_worker: NewWorker, tmp_path: Path) -> None:
    """A worker with it does all that one without does, and says so."""
    async with new_worker(durability="power") as worker:
        assert worker.info.durability == "power"
        job = await worker.start(shell("echo x; exit 3"), "ada")
        ended = await worker.wait(job.id)
        assert ended.end is not None
        assert ended.end.exit_code == 3
        assert await output_of(worker, job) == b"x\n"
    async with local_worker(tmp_path / "other") as worker:
        assert worker.info.durability == "process"
