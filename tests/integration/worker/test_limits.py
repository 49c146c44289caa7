"""What a server says that it can limit, and jobs that stand still; with controllers see tests/system/kernel."""

from __future__ import annotations

import asyncio
import resource
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from jobworker.core.errors import InvalidArgumentError, LimitNotEnforceableError, PauseNotSupportedError, StoreError
from jobworker.core.job import StopRequest
from jobworker.core.limits import Limits
from jobworker.core.spec import JobSpec
from jobworker.core.state import Cause, JobState
from jobworker.executors.local import LocalExecutor, LocalSettings
from jobworker.executors.place import REQUIRED, remedy
from jobworker.linux.limits import FILES
from jobworker.runtime import jobdir
from jobworker.runtime.jobdir import JobDir
from jobworker.worker import local_worker
from tests.integration.worker.test_start import cgroup_of
from tests.support.jobs import accepted_job
from tests.support.workers import CGROUP_V2, Gate, said, shell, supervisor_of

needs_cgroup = pytest.mark.skipif(not CGROUP_V2, reason="no cgroup v2 that this user may make groups in")


async def test_a_server_that_has_to_limit_and_cannot_does_not_start(state_dir: Path) -> None:
    """It says which limits, why, and what to do; it leaves neither groups nor processes."""
    async with local_worker(state_dir) as worker:
        missing = [limit for limit in REQUIRED if limit not in worker.info.enforceable_limits]
    if not missing:
        pytest.skip("all limits can be enforced here")
    with pytest.raises(InvalidArgumentError) as caught:
        async with local_worker(state_dir, cgroups="require"):
            pass
    assert caught.value.field == "cgroups"
    assert not CGROUP_V2 or not cgroup_of(state_dir).exists()
    assert all(limit in caught.value.problem for limit in (*missing, remedy(missing), 'cgroups = "auto"'))


async def test_each_limit_can_be_enforced_or_has_its_reason(state_dir: Path) -> None:
    """And one that cannot be is refused for that reason, after which nothing is left."""
    async with local_worker(state_dir) as worker:
        missing = dict(worker.info.missing_limits)
        assert sorted([*worker.info.enforceable_limits, *missing]) == sorted(FILES)
        assert all(missing.values())
    async with local_worker(state_dir, cgroups="off") as worker:
        assert worker.info.process_tracking == "subreaper"
        with pytest.raises(LimitNotEnforceableError, match="control groups are off"):
            await worker.start(JobSpec(argv=("true",), limits=Limits(pids=5)), "ada")
    assert list((state_dir / "jobs").iterdir()) == []


@needs_cgroup
async def test_a_paused_job_is_known_to_the_next_worker(state_dir: Path, gate: Gate) -> None:
    """It stands still meanwhile; resumed, it goes on to its end."""
    async with local_worker(state_dir) as worker:
        job = await worker.start(shell(f"echo ready; read x <{gate.path}; echo done"), "ada")
        await said(worker, job, b"ready")
        assert (await worker.pause(job.id)).paused
        gate.open()
    async with local_worker(state_dir) as worker:
        assert (await worker.get(job.id)).paused
        usage = await worker.usage(job.id)
        assert usage is not None
        assert usage.cpu_seconds is not None
        assert not (await worker.resume(job.id)).paused
        ended = await worker.wait(job.id)
        assert (ended.state, ended.paused) == (JobState.FINISHED, False)
        assert ended.output_bytes == len("ready\ndone\n")


@needs_cgroup
async def test_a_stop_ends_a_pause_and_says_so(state_dir: Path, gate: Gate) -> None:
    """The job runs on to its end, which may take its time."""
    script = f"trap 'echo stopping; read x <{gate.path}; exit 0' TERM; echo ready; sleep 1000 & wait"
    async with local_worker(state_dir) as worker:
        job = await worker.start(shell(script), "ada")
        await said(worker, job, b"ready")
        await worker.pause(job.id)
        stop = asyncio.ensure_future(worker.stop(job.id, by="ada", grace=timedelta(seconds=60)))
        await said(worker, job, b"stopping")
        stopping = await worker.get(job.id)
        assert (stopping.paused, stopping.stop is not None) == (False, True)
        gate.open()
        assert (await stop).state is JobState.STOPPED


async def test_without_groups_a_job_cannot_be_paused(state_dir: Path, gate: Gate) -> None:
    """It is told so, and goes on."""
    async with local_worker(state_dir, cgroups="off") as worker:
        job = await worker.start(shell(f"read x <{gate.path}"), "ada")
        with pytest.raises(PauseNotSupportedError):
            await worker.pause(job.id)
        assert not (await worker.resume(job.id)).paused
        assert (await worker.usage(job.id)) is not None
        gate.open()
        await worker.wait(job.id)


async def test_the_limits_of_the_last_update_are_those_that_are_known(state_dir: Path) -> None:
    """Also where the database is lost: they are in the job's directory."""
    async with local_worker(state_dir) as worker:
        job = await worker.wait((await worker.start(shell("true"), "ada")).id)
    with JobDir.open(state_dir / "jobs" / job.id) as directory:
        directory.write(jobdir.LIMITS, {"limits": {"pids": 7}}, sync=False)
    (state_dir / "jobs.db").unlink()
    async with local_worker(state_dir) as worker:
        assert (await worker.get(job.id)).limits == Limits(pids=7)


@needs_cgroup
async def test_limits_that_cannot_be_kept_are_an_error(state_dir: Path) -> None:
    """After a crash of the server nobody would know of them. The job runs on with those that it had."""
    state_dir.mkdir()
    async with LocalExecutor.open(LocalSettings(directory=state_dir)) as executor:
        job = accepted_job(spec=JobSpec(argv=("sleep", "1000")))
        execution = await executor.start(job)
        size = (state_dir / "jobs" / job.id / jobdir.RECORDS).stat().st_size
        supervisor = supervisor_of(job.id)
        unlimited = resource.prlimit(supervisor, resource.RLIMIT_FSIZE)
        resource.prlimit(supervisor, resource.RLIMIT_FSIZE, (size, unlimited[1]))
        with pytest.raises(StoreError, match="cannot be kept: File too large"):
            await execution.update(Limits(), before=Limits())
        resource.prlimit(supervisor, resource.RLIMIT_FSIZE, unlimited)
        assert await execution.update(Limits(), before=Limits())
        stop = StopRequest(requested_by="ada", request_time=datetime.now(UTC), grace=timedelta(0))
        await execution.request_stop(stop)
        assert (await execution.outcome()).end.cause is Cause.STOPPED


async def test_wall_time_is_not_below_zero(state_dir: Path) -> None:
    """Also where the clock has been set back since the start."""
    state_dir.mkdir()
    async with LocalExecutor.open(LocalSettings(directory=state_dir)) as executor:
        execution = await executor.start(accepted_job(spec=JobSpec(argv=("sleep", "1000"))))
        execution.start_time += timedelta(hours=1)
        usage = execution.usage()
        assert usage is not None
        assert usage.wall_seconds == 0
        await execution.request_stop(
            StopRequest(requested_by="ada", request_time=datetime.now(UTC), grace=timedelta(0))
        )
        await execution.outcome()
