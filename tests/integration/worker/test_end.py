"""How jobs end: by themselves, by a time limit, by a stop; and what is left of their processes: nothing."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from jobworker.core.errors import InvalidArgumentError, JobEndedError, JobNotEndedError
from jobworker.core.job import Job, JobEnd, StopRequest
from jobworker.core.records import stop_record
from jobworker.core.spec import ChildPolicy, JobSpec
from jobworker.core.state import Cause, JobState
from jobworker.runtime import protocol
from jobworker.runtime.jobdir import JobDir
from jobworker.worker import Worker
from tests.integration.worker.conftest import NewWorker
from tests.support.polling import until, until_job
from tests.support.workers import LIMIT, Gate, gone, job_pids, output_of, said, shell, supervisor_of

NOW = timedelta(0)
LONG = timedelta(hours=1)
pytestmark = pytest.mark.usefixtures("tree")


async def end_of(worker: Worker, job: Job) -> JobEnd:
    """How a job ends."""
    async with asyncio.timeout(LIMIT):
        end = (await worker.wait(job.id)).end
    assert end is not None
    return end


async def test_an_exit_code_and_a_signal_are_told_apart(worker: Worker) -> None:
    """137 is an exit code like any other; a signal is a signal; both are FINISHED; times are in order."""
    expected = {
        "exit 0": (Cause.EXITED, 0, None),
        "exit 137": (Cause.EXITED, 137, None),
        "exit 255": (Cause.EXITED, 255, None),
        "kill -9 $$": (Cause.SIGNALED, None, 9),
        "kill -TERM $$": (Cause.SIGNALED, None, 15),
        "kill -35 $$": (Cause.SIGNALED, None, 35),
    }
    jobs = {script: await worker.start(shell(script), "ada") for script in expected}
    for script, job in jobs.items():
        end = await end_of(worker, job)
        assert (end.cause, end.exit_code, end.signal) == expected[script]
        ended = await worker.get(job.id)
        assert ended.state is JobState.FINISHED
        assert ended.stop is None
        assert ended.start_time is not None
        assert job.create_time <= ended.start_time <= end.end_time <= datetime.now(UTC)


def state(pid: int) -> str:
    """What a process does, as ps tells it: S for sleeping, T for stopped."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


async def test_a_stop_after_a_natural_end_is_too_late(worker: Worker, gate: Gate, state_dir: Path) -> None:
    """A stop that comes when the first process has exited, and before its supervisor has noticed, changes nothing."""
    job = await worker.start(shell(f"echo ready; read x < {gate.path}; exit 7"), "ada")
    await said(worker, job)
    (leader,) = job_pids(job.id)
    supervisor = supervisor_of(job.id)
    stop = StopRequest(requested_by="bob", request_time=datetime.now(UTC))
    with JobDir.open(state_dir / "jobs" / job.id) as directory, directory.connect() as control:
        control.settimeout(LIMIT)
        assert protocol.decode(control.recv(protocol.MAX_MESSAGE_BYTES))["event"] == "started"
        while state(supervisor) != "S":  # until it waits for events
            pass
        os.kill(supervisor, signal.SIGSTOP)
        while state(supervisor) != "T":
            pass
        gate.open()
        gone([leader])  # a zombie, until its supervisor goes on
        control.send(protocol.encode({"op": "stop", "n": 1, "stop": stop_record(stop)}))
        os.kill(supervisor, signal.SIGCONT)
        assert protocol.decode(control.recv(protocol.MAX_MESSAGE_BYTES)) == {"reply": 1, "ok": False}
    end = await end_of(worker, job)
    assert (end.cause, end.exit_code) == (Cause.EXITED, 7)
    assert (await worker.get(job.id)).stop is None


async def test_a_time_limit_ends_a_job(worker: Worker) -> None:
    """TIMED_OUT with what became of the process; a stop of a job that ignores it hurries the kill and is too late."""
    limit = timedelta(milliseconds=100)
    stubborn = await worker.start(shell("trap 'echo deaf' TERM; while :; do sleep 0.01; done", time_limit=limit), "ada")
    obedient = await worker.start(shell("sleep 4251 & wait", time_limit=limit), "ada")
    end = await end_of(worker, obedient)
    assert (end.cause, end.signal) == (Cause.TIMED_OUT, signal.SIGTERM)
    assert (await worker.get(obedient.id)).state is JobState.FINISHED
    await said(worker, stubborn, b"deaf\n")
    assert (await worker.get(stubborn.id)).end is None, "it has its grace"
    with pytest.raises(JobEndedError):
        await worker.stop(stubborn.id, by="ada", grace=NOW)
    end = await end_of(worker, stubborn)
    assert (end.cause, end.signal) == (Cause.TIMED_OUT, signal.SIGKILL)


async def test_a_time_limit_beyond_what_poll_can_count_is_just_far_away(worker: Worker, gate: Gate) -> None:
    """A limit of ten years neither ends the job nor breaks its supervisor."""
    script = f"echo ready; read x < {gate.path}; exit 5"
    job = await worker.start(shell(script, time_limit=timedelta(days=3650)), "ada")
    await said(worker, job)
    gate.open()
    assert (await end_of(worker, job)).exit_code == 5


async def test_a_stop_is_recorded_with_who_and_when_and_may_be_repeated(worker: Worker) -> None:
    """STOPPED, by whom, when, with which signal; a repeated stop gives the same answer and changes nothing."""
    before = datetime.now(UTC)
    job = await worker.start(shell("sleep 4253"), "ada")
    stopped = await worker.stop(job.id, by="root-ada")
    assert stopped.state is JobState.STOPPED
    assert stopped.stop is not None
    assert stopped.end is not None
    assert (stopped.stop.requested_by, stopped.stop.signal) == ("root-ada", signal.SIGTERM)
    assert before <= stopped.stop.request_time <= stopped.end.end_time
    assert (stopped.end.cause, stopped.end.signal) == (Cause.STOPPED, signal.SIGTERM)
    again = await worker.stop(job.id, by="bob", grace=NOW)
    assert (again.stop, again.end) == (stopped.stop, stopped.end)
    assert await worker.get(job.id) == again


async def test_a_stop_sends_the_signal_that_was_asked_for(worker: Worker) -> None:
    """A job may end well on it: then it is STOPPED with its exit code."""
    job = await worker.start(shell("trap 'exit 3' HUP; echo ready; while :; do sleep 4254 & wait; done"), "ada")
    await said(worker, job)
    stopped = await worker.stop(job.id, by="ada", signal=signal.SIGHUP)
    assert stopped.end is not None
    assert (stopped.end.cause, stopped.end.exit_code, stopped.end.signal) == (Cause.STOPPED, 3, None)
    other = await worker.start(shell("exit 0"), "ada")
    for wrong in (0, 65):
        with pytest.raises(InvalidArgumentError):
            await worker.stop(other.id, by="ada", signal=wrong)
    with pytest.raises(InvalidArgumentError):
        await worker.stop(other.id, by="ada", grace=timedelta(seconds=-1))


async def test_a_stop_after_the_end_changes_nothing(worker: Worker) -> None:
    """The job stays FINISHED with its exit code, and the caller is told."""
    job = await worker.start(shell("exit 4"), "ada")
    end = await end_of(worker, job)
    with pytest.raises(JobEndedError, match="already finished"):
        await worker.stop(job.id, by="ada")
    with pytest.raises(JobEndedError, match="cannot signal"):
        await worker.signal(job.id, signal.SIGTERM)
    after = await worker.get(job.id)
    assert (after.state, after.end, after.stop) == (JobState.FINISHED, end, None)


async def test_stops_that_race_the_end_have_one_winner(worker: Worker) -> None:
    """Of 200 stops at the moment of the end, each answer agrees with the record, which agrees with the process."""

    async def race(delay_ms: int) -> tuple[bool, Job]:
        job = await worker.start(shell(f"sleep 0.{delay_ms:03}; exit 6"), "ada")
        try:
            await worker.stop(job.id, by="ada")
        except JobEndedError:
            return False, await worker.get(job.id)
        return True, await worker.get(job.id)

    results: list[tuple[bool, Job]] = []
    for batch in range(10):
        results += await asyncio.gather(*(race((batch * 20 + i) % 25) for i in range(20)))
    for won, job in results:
        assert job.end is not None
        if won:
            assert (job.state, job.end.cause) == (JobState.STOPPED, Cause.STOPPED)
            assert job.stop is not None
        else:
            assert (job.state, job.end.cause, job.end.exit_code) == (JobState.FINISHED, Cause.EXITED, 6)
            assert job.stop is None


async def test_a_stop_leaves_no_process(worker: Worker) -> None:
    """Not in the background, not in a session of its own."""
    job = await worker.start(shell("sleep 4242 & setsid sleep 4243 & echo ready; sleep 4244"), "ada")
    await said(worker, job)
    await worker.stop(job.id, by="ada")
    assert not job_pids(job.id)


async def test_a_daemon_that_ignores_the_signal_is_killed_after_the_grace(worker: Worker, gate: Gate) -> None:
    """A double-forked process, in a session of its own, without the job's mark, deaf to TERM, ends with its job."""
    daemon = f"trap '' TERM HUP; echo \\$\\$; echo ready; read x < {gate.path}"
    job = await worker.start(shell(f'(setsid env -i sh -c "{daemon}" &) ; sleep 4245'), "ada")
    pid = int((await said(worker, job)).split()[0])
    assert os.getsid(pid) == pid
    assert pid not in job_pids(job.id)
    stopped = await worker.stop(job.id, by="ada", grace=timedelta(milliseconds=100))
    assert stopped.state is JobState.STOPPED
    gone([pid])


async def test_the_leader_may_end_before_the_grace_is_over_while_others_still_work(worker: Worker, gate: Gate) -> None:
    """A stop waits for all processes of the job, at most as long as the grace."""
    child = f"trap '' TERM; echo ready; read x < {gate.path}; echo cleaned up"
    job = await worker.start(shell(f'sh -c "{child}" & sleep 4246'), "ada")
    await said(worker, job)
    stop = asyncio.ensure_future(worker.stop(job.id, by="ada", grace=LONG))
    await until(lambda: len(job_pids(job.id)) == 1)  # the leader is gone
    assert not stop.done()
    gate.open()
    assert (await stop).state is JobState.STOPPED
    assert await output_of(worker, job) == b"ready\ncleaned up\n"


async def test_a_frozen_job_sees_the_signal(worker: Worker) -> None:
    """A job that was stopped with SIGSTOP is continued first, so that it can end well."""
    job = await worker.start(shell("trap 'echo bye; exit 9' TERM; echo ready; while :; do :; done"), "ada")
    await said(worker, job)
    await worker.signal(job.id, signal.SIGSTOP)
    stopped = await worker.stop(job.id, by="ada", grace=LONG)
    assert stopped.end is not None
    assert stopped.end.exit_code == 9
    assert await output_of(worker, job) == b"ready\nbye\n"


async def test_a_grace_of_zero_kills_at_once(worker: Worker) -> None:
    """Without a grace there is no other signal: a trap never runs."""
    job = await worker.start(shell("trap 'echo bye' TERM; echo ready; while :; do :; done"), "ada")
    await said(worker, job)
    stopped = await worker.stop(job.id, by="ada", grace=NOW)
    assert stopped.end is not None
    assert (stopped.end.cause, stopped.end.signal) == (Cause.STOPPED, signal.SIGKILL)
    assert await output_of(worker, job) == b"ready\n"


async def test_a_stop_can_be_hurried_and_others_are_answered_meanwhile(worker: Worker) -> None:
    """While a stop waits for its grace, status, list and signal answer; a second stop can only shorten the grace."""
    job = await worker.start(shell("trap 'echo deaf' TERM; echo ready; while :; do sleep 0.01; done"), "ada")
    await said(worker, job)
    first = asyncio.ensure_future(worker.stop(job.id, by="ada", grace=LONG))
    await said(worker, job, b"deaf\n")
    seen = await until_job(worker.get, job.id, lambda job: job.stop)  # which may be told after the job has its signal
    assert seen.state is JobState.RUNNING
    assert seen.stop is not None
    assert seen.stop.requested_by == "ada"
    assert [listed.id for listed in (await worker.list()).jobs] == [job.id]
    await worker.signal(job.id, signal.SIGCONT)
    longer = asyncio.ensure_future(worker.stop(job.id, by="eve", grace=timedelta(hours=2)))
    second = await worker.stop(job.id, by="bob", grace=NOW)
    assert second == await first == await longer
    assert second.stop is not None
    assert (second.stop.requested_by, second.stop.grace) == ("ada", LONG)


async def test_a_stop_goes_on_when_its_caller_has_gone(worker: Worker) -> None:
    """A cancelled stop ends the job all the same."""
    job = await worker.start(shell("echo ready; sleep 4247"), "ada")
    await said(worker, job)
    call = asyncio.ensure_future(worker.stop(job.id, by="ada"))
    await until_job(worker.get, job.id, lambda job: job.stop)
    call.cancel()
    assert (await end_of(worker, job)).cause is Cause.STOPPED


async def test_children_that_outlive_the_first_process_are_killed(worker: Worker) -> None:
    """By default the job ends with its first process, even if a child holds the output open; the code is kept."""
    job = await worker.start(shell("sleep 4248 & setsid sleep 4249 & exit 8"), "ada")
    end = await end_of(worker, job)
    assert (end.cause, end.exit_code) == (Cause.EXITED, 8)
    assert not job_pids(job.id)


async def test_children_may_finish_if_the_job_says_so(worker: Worker, new_gate: Callable[[], Gate]) -> None:
    """With WAIT the job ends with its last process, its output is complete and the code is the first one's."""
    gate = new_gate()
    script = f"echo $$; (setsid sh -c 'echo ready; read x < {gate.path}; echo late' &); exit 8"
    job = await worker.start(shell(script, child_policy=ChildPolicy.WAIT), "ada")
    leader = (await said(worker, job)).split()[0]
    await until(lambda: int(leader) not in job_pids(job.id))
    assert (await worker.get(job.id)).state is JobState.RUNNING
    await worker.signal(job.id, signal.SIGKILL)  # the group of the first process is gone: nobody is hit
    gate.open()
    end = await end_of(worker, job)
    assert (end.cause, end.exit_code) == (Cause.EXITED, 8)
    assert await output_of(worker, job) == leader + b"\nready\nlate\n"
    other = await worker.start(shell(script, child_policy=ChildPolicy.WAIT), "ada")
    stopped = await worker.stop(other.id, by="ada", grace=NOW)
    assert stopped.state is JobState.STOPPED
    assert not job_pids(other.id)


async def test_a_signal_reaches_the_process_group_of_the_first_process(worker: Worker) -> None:
    """As a Ctrl-C in a terminal would: the group, not what has left it."""
    job = await worker.start(
        shell("trap 'echo got it; exit 0' INT; setsid sleep 4255 & echo ready; while :; do sleep 0.01; done"), "ada"
    )
    await said(worker, job)
    await worker.signal(job.id, signal.SIGINT)
    assert (await end_of(worker, job)).exit_code == 0
    assert b"got it\n" in await output_of(worker, job)
    with pytest.raises(InvalidArgumentError):
        await worker.signal(job.id, 0)


async def test_an_ended_job_can_be_removed_and_a_running_one_cannot(worker: Worker, state_dir: Path) -> None:
    """Removing forgets the job and deletes its files; its request id is free again."""
    job = await worker.start(shell("echo x; sleep 4256"), "ada")
    with pytest.raises(JobNotEndedError):
        await worker.remove(job.id)
    await worker.stop(job.id, by="ada")
    assert (state_dir / "jobs" / job.id / "output").exists()
    await worker.remove(job.id)
    assert not list((state_dir / "jobs").iterdir())
    assert not list((state_dir / "removed").iterdir())
    assert not (await worker.list()).jobs


async def test_leaving_a_worker_can_stop_its_jobs(new_worker: NewWorker) -> None:
    """With stop_jobs_on_exit all jobs are stopped and recorded so, those just being started included."""
    starts: list[asyncio.Future[Job]] = []
    async with new_worker(stop_jobs_on_exit=True) as worker:
        await worker.start(shell("sleep 4257"), "ada")
        starts += [asyncio.ensure_future(worker.start(JobSpec(argv=("sleep", "4258")), "ada")) for _ in range(5)]
        await asyncio.sleep(0)  # let them begin
    await asyncio.gather(*starts)
    async with new_worker() as worker:
        jobs = (await worker.list()).jobs
        assert [job.state for job in jobs] == [JobState.STOPPED] * 6
        assert {job.stop.requested_by for job in jobs if job.stop} == {"jobworker (stop on exit)"}
