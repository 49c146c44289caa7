"""Whatever a job does, it is in its group, and goes with it."""

from __future__ import annotations

import os
from datetime import timedelta

import pytest

from jobworker.core.spec import JobSpec
from jobworker.core.state import JobState
from jobworker.worker import Worker
from tests.support.kernel import group_of, groups_of, pids_in
from tests.support.workers import Gate, gone, job_pids, output_of, said, shell, supervisor_of

pytestmark = pytest.mark.system

# three daemons without parent and session that listen to no signal
DAEMONS = """trap '' TERM HUP INT
for i in 1 2 3; do (setsid sh -c 'echo up; exec sleep 1000' &) ; done
"""
UP = b"up\nup\nup\n"


async def test_a_job_is_born_in_its_group(worker: Worker) -> None:
    """The first thing that the program could look at says so, and the group is the job's own."""
    job = await worker.start(JobSpec(argv=("cat", "/proc/self/cgroup")), "ada")
    assert job.id in (await output_of(worker, job)).decode()


async def test_the_supervisor_is_not_in_the_group(worker: Worker) -> None:
    """The group has the job's processes and no other."""
    job = await worker.start(shell("echo ready; exec sleep 1000"), "ada")
    await said(worker, job)
    (pid,) = pids_in(group_of(job.id))
    assert pid not in (os.getpid(), supervisor_of(job.id))
    assert pid in job_pids(job.id)


async def test_daemons_end_with_the_job(worker: Worker) -> None:
    """What has left session and parents and ignores signals is gone when the stop is answered, and so is the group."""
    job = await worker.start(shell(f"{DAEMONS} exec sleep 1000"), "ada")
    await said(worker, job, UP)
    pids = pids_in(group_of(job.id))
    assert len(pids) == 4
    stopped = await worker.stop(job.id, by="ada", grace=timedelta(0))
    assert stopped.state is JobState.STOPPED
    gone(pids)
    assert groups_of(job.id) == []


async def test_daemons_do_not_outlive_a_natural_end(worker: Worker, gate: Gate) -> None:
    """The end of the first process is the end of the others."""
    job = await worker.start(shell(f"{DAEMONS} read x <{gate.path}; exit 5"), "ada")
    await said(worker, job, UP)
    pids = pids_in(group_of(job.id))
    gate.open()
    end = (await worker.wait(job.id)).end
    assert end is not None
    assert end.exit_code == 5
    gone(pids)
    assert groups_of(job.id) == []
