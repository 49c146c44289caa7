"""Every limit is seen to hold, in the job and in what the kernel counts, and the end says what has ended the job."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest

from jobworker.core.errors import LimitNotEnforceableError
from jobworker.core.job import Job, JobEnd
from jobworker.core.limits import IoLimit, Limits
from jobworker.core.spec import JobSpec
from jobworker.core.state import Cause, JobState
from jobworker.core.usage import Usage
from jobworker.worker import Worker, local_worker
from tests.support.kernel import all_groups, group_of, groups_of, stat
from tests.support.polling import until
from tests.support.workers import Gate, job_pids, output_of, said

pytestmark = pytest.mark.system

MIB = 1024 * 1024
BOMB = ":(){ :|:& };:; exec sleep 1000"
# busy for three seconds; then the seconds at the clock, and those of the CPU that it had
BUSY = """read start _ </proc/uptime; until=$((${start%.*} + 3))
while read now _ </proc/uptime; [ "${now%.*}" -lt $until ]; do :; done; echo $start $now; times"""


def limited(script: str, limits: Limits, *, folder: Path = Path("/"), time_limit: timedelta | None = None) -> JobSpec:
    """A script with limits."""
    return JobSpec(argv=("bash", "-c", script), limits=limits, cwd=str(folder), time_limit=time_limit)


async def end_of(worker: Worker, job: Job) -> tuple[JobEnd, Usage]:
    """The end of a job and what it has used; its group is gone."""
    end = (await worker.wait(job.id)).end
    assert end is not None
    assert end.usage is not None
    assert groups_of(job.id) == []
    return end, end.usage


async def test_out_of_memory_ends_the_whole_job(worker: Worker) -> None:
    """The kernel kills all processes of a job that needs more than its memory, and the end says so."""
    job = await worker.start(limited("sleep 1000 & tail /dev/zero; echo survived", Limits(memory=32 * MIB)), "ada")
    assert b"survived" not in await output_of(worker, job)
    end, usage = await end_of(worker, job)
    assert end.cause is Cause.OOM_KILLED
    assert usage.oom_kills is not None
    assert usage.oom_kills >= 1
    if usage.memory_peak_bytes is not None:  # since Linux 5.19
        assert 16 * MIB < usage.memory_peak_bytes <= 32 * MIB


async def test_a_job_can_outlive_a_child_that_is_out_of_memory(worker: Worker) -> None:
    """Without oom_group the kernel kills one process, which is counted; the job goes on to an end of its own."""
    limits = Limits(memory=32 * MIB, oom_group=False)
    job = await worker.start(limited("tail /dev/zero; echo survived; exit 3", limits), "ada")
    assert b"survived" in await output_of(worker, job)
    end, usage = await end_of(worker, job)
    assert (end.cause, end.exit_code, usage.oom_kills) == (Cause.EXITED, 3, 1)


async def test_an_update_lets_a_child_die_alone(worker: Worker, gate: Gate) -> None:
    """From then on; a kill of the first process that comes later is not called out of memory."""
    script = f"echo ready; read x <{gate.path}; tail /dev/zero; echo survived; kill -9 $$"
    job = await worker.start(limited(script, Limits(memory=32 * MIB)), "ada")
    await said(worker, job)
    await worker.update(job.id, Limits(oom_group=False))
    gate.open()
    assert b"survived" in await output_of(worker, job)
    end, usage = await end_of(worker, job)
    assert (end.cause, usage.oom_kills) == (Cause.SIGNALED, 1)


async def test_137_is_not_called_out_of_memory(worker: Worker) -> None:
    """A job that exits as a shell does after SIGKILL has exited."""
    job = await worker.start(limited("exit 137", Limits(memory=32 * MIB)), "ada")
    end, usage = await end_of(worker, job)
    assert (end.cause, end.exit_code, usage.oom_kills) == (Cause.EXITED, 137, 0)


async def test_a_job_gets_its_part_of_a_cpu(worker: Worker) -> None:
    """A fifth of a CPU is a fifth of the time, as the job sees it and as the kernel counts."""
    job = await worker.start(limited(BUSY, Limits(cpus=0.2)), "ada")
    start, now, *times = (await output_of(worker, job)).decode().split()
    wall = float(now) - float(start)
    minutes, seconds = zip(*(word.rstrip("s").split("m") for word in times[:2]), strict=True)
    ratio = (60 * sum(map(int, minutes)) + sum(map(float, seconds))) / wall
    assert 0.02 < ratio < 0.3
    _, usage = await end_of(worker, job)
    assert usage.throttled_periods is not None
    assert usage.throttled_seconds is not None
    assert usage.cpu_seconds is not None
    assert usage.throttled_periods >= 5
    assert usage.throttled_seconds > 0.5
    assert usage.cpu_seconds / usage.wall_seconds < 0.3


async def test_a_job_writes_no_faster_than_it_may(worker: Worker, state_dir: Path) -> None:
    """4 MiB at 1 MiB/s take more than 2 s and are counted; the limit is that of the disk under the working folder."""
    folder = state_dir.parent / "work"
    folder.mkdir()
    folder.chmod(0o777)
    limits = Limits(io=(IoLimit(write_bytes_per_second=MIB),))
    job = await worker.start(limited("dd if=/dev/zero of=f bs=64k count=64 oflag=direct", limits, folder=folder), "ada")
    end, usage = await end_of(worker, job)
    assert end.exit_code == 0, await output_of(worker, job)
    assert usage.wall_seconds > 2
    assert usage.io_write_bytes is not None
    assert usage.io_write_operations is not None
    assert usage.io_write_bytes >= 4 * MIB
    assert usage.io_write_operations >= 1


async def test_a_fork_bomb_stays_in_its_group_and_goes_with_it(worker: Worker) -> None:
    """As the job's first act it meets pids.max; no process is outside, and a stop leaves neither process nor group."""
    job = await worker.start(limited(BOMB, Limits(pids=20)), "ada")
    group = group_of(job.id)
    await until(lambda: stat(group, "pids.events")["max"] >= 5)
    assert int((group / "pids.current").read_text()) <= 20
    for pid in job_pids(job.id):
        with suppress(FileNotFoundError, ProcessLookupError):  # it has ended
            assert job.id in Path(f"/proc/{pid}/cgroup").read_text()
    assert (await worker.stop(job.id, by="ada", grace=timedelta(0))).state is JobState.STOPPED
    await end_of(worker, job)
    assert job_pids(job.id) == []


async def test_a_paused_job_stands_still_and_can_be_stopped(worker: Worker) -> None:
    """All of its processes are frozen; a resume lets them go on, a stop of a paused job ends it."""
    job = await worker.start(limited("sleep 1000 & echo ready; while :; do :; done", Limits()), "ada")
    await said(worker, job)
    group = group_of(job.id)
    assert (await worker.pause(job.id)).paused
    assert stat(group, "cgroup.events")["frozen"] == 1
    assert not (await worker.resume(job.id)).paused
    assert stat(group, "cgroup.events")["frozen"] == 0
    await worker.pause(job.id)
    assert (await worker.stop(job.id, by="ada")).state is JobState.STOPPED
    await end_of(worker, job)


async def test_the_time_limit_stands_still_with_the_job(worker: Worker, gate: Gate) -> None:
    """A job that is paused for longer than its time limit runs on afterwards, and then for no longer than that."""
    spec = limited(f"echo ready; read x <{gate.path}; echo on; sleep 1000", Limits(), time_limit=timedelta(seconds=4))
    job = await worker.start(spec, "ada")
    await said(worker, job)
    await worker.pause(job.id)
    await asyncio.sleep(5)  # the time that has to pass is what is tried here
    assert (await worker.get(job.id)).end is None
    await worker.resume(job.id)
    gate.open()
    assert b"on\n" in await output_of(worker, job)
    end, usage = await end_of(worker, job)
    assert end.cause is Cause.TIMED_OUT
    assert usage.wall_seconds > 5


async def test_limits_of_a_running_job_change(worker: Worker) -> None:
    """What is updated is in force and shown, the rest stays."""
    job = await worker.start(limited("echo ready; exec sleep 1000", Limits(pids=20, memory=64 * MIB)), "ada")
    await said(worker, job)
    updated = await worker.update(job.id, Limits(pids=30))
    assert (updated.limits.pids, updated.limits.memory) == (30, 64 * MIB)
    group = group_of(job.id)
    assert (group / "pids.max").read_text() == "30\n"
    assert (group / "memory.max").read_text() == f"{64 * MIB}\n"
    await worker.stop(job.id, by="ada")


async def test_a_refused_limit_leaves_nothing_behind(worker: Worker, state_dir: Path) -> None:
    """The start names the limit; there is no row, no directory, no group and no process."""
    with pytest.raises(LimitNotEnforceableError, match="cpuset"):
        await worker.start(limited("sleep 1000", Limits(cpuset="500")), "ada")
    assert not (await worker.list()).jobs
    assert list((state_dir / "jobs").iterdir()) == []
    ours = [group.name for group in all_groups() if group.parent.name.startswith("jobworker-")]
    standing_by = [path.name for path in (state_dir / "standby").iterdir()]
    assert not [name for name in ours if not name.startswith("rehearsal-") and name not in standing_by]


async def test_require_has_every_limit(state_dir: Path) -> None:
    """Where all controllers are, a server that requires them starts and says what it can enforce."""
    async with local_worker(state_dir, cgroups="require") as worker:
        assert worker.info.process_tracking == "cgroup"
        assert {"cpus", "memory", "pids", "io"} <= set(worker.info.enforceable_limits)


async def test_off_has_none_and_says_so(state_dir: Path) -> None:
    """Without control groups a job that asks for a limit is refused, and one that does not runs."""
    async with local_worker(state_dir, cgroups="off", stop_jobs_on_exit=True) as worker:
        assert (worker.info.process_tracking, worker.info.enforceable_limits) == ("subreaper", ())
        with pytest.raises(LimitNotEnforceableError):
            await worker.start(limited("true", Limits(pids=20)), "ada")
        job = await worker.start(JobSpec(argv=("cat", "/proc/self/cgroup")), "ada")
        assert job.id not in (await output_of(worker, job)).decode()
