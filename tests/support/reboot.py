"""What a worker does before a machine goes down without notice, and after: run in two VMs, one after the other.

`before STATE` leaves jobs behind and takes the machine down; `after STATE` looks at what has become of them.
"""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from pathlib import Path

from jobworker.core.state import JobState
from jobworker.executors.base import CgroupMode
from jobworker.worker import local_worker
from tests.support.workers import job_pids, output_of, said, shell, supervisor_of


async def before(state: Path) -> None:
    """Start jobs, one with a cgroup and one that is known by pids alone, and write down their ids and processes."""
    pids: list[int] = []
    ids: list[str] = []
    modes: tuple[CgroupMode, ...] = ("auto", "off")
    for mode in modes:
        async with local_worker(state, cgroups=mode) as worker:
            job = await worker.start(shell("setsid sleep 1000 & echo before; wait"), "ada")
            await said(worker, job, b"before\n")
            ids.append(job.id)
            pids += [supervisor_of(job.id), *job_pids(job.id)]
    (state.parent / "left.json").write_text(json.dumps({"ids": ids, "pids": pids}))
    Path("/proc/sysrq-trigger").write_text("b")  # at once: nothing is told, nothing is synced
    signal.pause()


async def after(state: Path) -> None:
    """All jobs are lost, their output is there, and who has their pids now lives on."""
    left = json.loads((state.parent / "left.json").read_text())
    bystanders = [_process_with(pid) for pid in left["pids"]]
    async with local_worker(state) as worker:
        for job_id in left["ids"]:
            job = await worker.wait(job_id)
            assert job.state is JobState.LOST, job
            assert await output_of(worker, job) == b"before\n"
        job = await worker.start(shell("exit 5"), "ada")
        end = (await worker.wait(job.id)).end
        assert end is not None
        assert end.exit_code == 5
    for bystander in bystanders:
        assert bystander.poll() is None, "a process of the new boot was ended"
        bystander.kill()
        bystander.wait()
    sys.stdout.write(f"{len(left['ids'])} lost, {len(bystanders)} bystanders alive\n")


def _process_with(pid: int) -> subprocess.Popen[bytes]:
    Path("/proc/sys/kernel/ns_last_pid").write_text(str(pid - 1))
    process = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    assert process.pid == pid, f"{pid} is taken"
    return process


if __name__ == "__main__":
    asyncio.run({"before": before, "after": after}[sys.argv[1]](Path(sys.argv[2])))
