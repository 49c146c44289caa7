"""What limits, usage and ends say is so, also of jobs that use the kernel in unusual ways."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Generator
from pathlib import Path

import pytest

from jobworker.core.errors import LimitNotEnforceableError
from jobworker.core.job import JobEnd
from jobworker.core.limits import IoLimit, Limits
from jobworker.core.spec import JobSpec
from jobworker.core.state import Cause
from jobworker.executors.place import place_name
from jobworker.worker import Worker, local_worker
from tests.support.kernel import all_groups, group_of
from tests.support.workers import PROJECT, output_of, said

pytestmark = pytest.mark.system

MIB = 1024 * 1024
DRIVERS = PROJECT / "build" / "vm-kernel" / "modules" / "kernel" / "drivers" / "md"
OWN = "group=/sys/fs/cgroup$(sed s/0::// /proc/self/cgroup)\n"  # a job's own group
SLEEP = "echo ready; exec sleep 1000"


def limited(script: str, limits: Limits | None = None, *, folder: Path = Path("/")) -> JobSpec:
    """A script with limits."""
    return JobSpec(argv=("bash", "-c", script), limits=limits or Limits(), cwd=str(folder))


async def end_as_root(state_dir: Path, script: str, limits: Limits | None = None) -> JobEnd:
    """How a job ends that is root's, and so may do anything to its group."""
    async with local_worker(state_dir, cgroups="require", job_user="root", stop_jobs_on_exit=True) as worker:
        end = (await worker.wait((await worker.start(limited(OWN + script, limits), "ada")).id)).end
        assert end is not None
        return end


async def test_a_cpuset_can_be_given_back(worker: Worker) -> None:
    """The kernel takes no empty one while processes are in the group: it is that of all jobs again."""
    job = await worker.start(limited(SLEEP, Limits(cpuset="1")), "ada")
    await said(worker, job)
    assert (await worker.update(job.id, Limits(), {"cpuset"})).limits.cpuset is None
    assert (group_of(job.id) / "cpuset.cpus.effective").read_text() == "0-1\n"


async def test_a_refused_update_changes_nothing(worker: Worker, state_dir: Path) -> None:
    """The CPUs that were written before the refused limit are given back, too."""
    job = await worker.start(limited(SLEEP), "ada")
    await said(worker, job)
    node = state_dir.parent / "node"
    os.mknod(node, 0o600 | stat.S_IFBLK, os.makedev(240, 5))  # there is no such disk: io.max answers ENODEV
    limits = Limits(cpuset="0", io=(IoLimit(device=str(node), write_bytes_per_second=MIB),))
    with pytest.raises(LimitNotEnforceableError):
        await worker.update(job.id, limits)
    assert (group_of(job.id) / "cpuset.cpus.effective").read_text() == "0-1\n"


async def test_what_is_given_back_of_a_memory_limit_is_as_in_a_new_job(worker: Worker) -> None:
    """No swap, and an end as a whole."""
    job = await worker.start(limited(SLEEP, Limits(memory=64 * MIB, swap=MIB, oom_group=False)), "ada")
    await said(worker, job)
    await worker.update(job.id, Limits(), {"swap", "oom_group"})
    assert (group_of(job.id) / "memory.swap.max").read_text() == "0\n"
    assert (group_of(job.id) / "memory.oom.group").read_text() == "1\n"


async def test_a_job_can_read_its_limits_and_not_write_them(worker: Worker) -> None:
    """Runtimes size themselves by them."""
    script = OWN + "cat $group/memory.max; echo max >$group/memory.max || cat $group/memory.max"
    job = await worker.start(limited(script, Limits(memory=64 * MIB)), "ada")
    first, refusal, second = (await output_of(worker, job)).splitlines()
    assert first == second == str(64 * MIB).encode()
    assert b"Permission denied" in refusal


@pytest.fixture
def mapped(state_dir: Path) -> Generator[Path]:
    """A folder on a device mapper's disk on a loop's on the disk of the tests: three layers."""
    image, folder = state_dir.parent / "image", state_dir.parent / "folder"
    folder.mkdir()

    def run(command: str) -> str:
        return subprocess.run(["sh", "-ec", command], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()

    run(f"insmod {DRIVERS}/dm-mod.ko || [ -e /sys/module/dm_mod ]; truncate -s 64M {image}")
    loop = run(f"losetup --find --show --direct-io=on {image}")
    run(f"dmsetup create jobworker-test --noudevsync --noudevrules --table '0 131072 linear {loop} 0'; dmsetup mknodes")
    run(f"mkfs.ext4 -q /dev/mapper/jobworker-test; mount /dev/mapper/jobworker-test {folder}; chmod 777 {folder}")
    yield folder
    run(f"umount {folder}; dmsetup remove jobworker-test; losetup --detach {loop}")


async def test_what_goes_through_layers_of_disks_is_counted_once(worker: Worker, mapped: Path) -> None:
    """8 MiB are not 16 or 24."""
    job = await worker.start(limited("dd if=/dev/zero of=f bs=64k count=128 oflag=direct", folder=mapped), "ada")
    end = (await worker.wait(job.id)).end
    assert end is not None
    assert end.usage is not None
    assert end.usage.io_write_bytes is not None
    assert 8 * MIB <= end.usage.io_write_bytes < 9 * MIB


async def test_a_job_that_removes_its_own_group_has_an_end(state_dir: Path) -> None:
    """Root's can leave its group; its supervisor waits for it all the same."""
    end = await end_as_root(state_dir, "echo $$ >/sys/fs/cgroup/cgroup.procs; rmdir $group; sleep 1; exit 6")
    assert (end.cause, end.exit_code) == (Cause.EXITED, 6)


async def test_a_lack_of_memory_in_a_group_of_a_jobs_own_is_not_its_end(state_dir: Path) -> None:
    """What is killed by a limit that the job has set itself is counted, and a SIGKILL later on is another matter."""
    script = """mkdir $group/leaf $group/in; echo $$ >$group/leaf/cgroup.procs
    echo +memory >$group/cgroup.subtree_control
    echo 20000000 >$group/in/memory.max; (echo $BASHPID >$group/in/cgroup.procs; exec tail /dev/zero); kill -9 $$"""
    end = await end_as_root(state_dir, script, Limits(memory=200 * MIB))
    assert (end.cause, end.signal) == (Cause.SIGNALED, 9)
    assert end.usage is not None
    assert end.usage.oom_kills == 1


async def test_a_lack_of_memory_of_the_whole_job_is_its_end_from_a_group_of_its_own_too(state_dir: Path) -> None:
    """It is the job's limit that counts, not where the job keeps its processes."""
    script = "mkdir $group/leaf; echo $$ >$group/leaf/cgroup.procs; tail /dev/zero"
    end = await end_as_root(state_dir, script, Limits(memory=32 * MIB))
    assert end.cause is Cause.OOM_KILLED


@pytest.mark.parametrize("memory", [1, 100_000])
async def test_too_little_memory_to_start_is_said(worker: Worker, memory: int) -> None:
    """The kernel ends the process before it has executed the program; there is nothing left of it."""
    with pytest.raises(LimitNotEnforceableError, match=r"limits\.memory: .*too little"):
        await worker.start(limited("true", Limits(memory=memory)), "ada")
    assert not (await worker.list()).jobs


@pytest.mark.parametrize("name", ["jobs", "removed"])
async def test_a_worker_that_cannot_start_leaves_no_group(state_dir: Path, name: str) -> None:
    """It finds out only when it has the groups."""
    state_dir.mkdir(mode=0o700)
    (state_dir / name).touch()
    with pytest.raises(FileExistsError):
        async with local_worker(state_dir):
            pass
    assert place_name(state_dir) not in [group.name for group in all_groups()]
