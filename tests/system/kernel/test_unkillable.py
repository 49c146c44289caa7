"""A process in a system call that nothing interrupts cannot be killed: that is told, and keeps nobody else."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from jobworker.core.state import JobState
from jobworker.worker import Worker
from tests.support.kernel import groups_of
from tests.support.polling import until, until_job
from tests.support.workers import Gate, job_pids, said, shell


@pytest.fixture
def disk(state_dir: Path) -> Generator[Path]:
    """A file system of its own."""
    image, disk = state_dir.parent / "image", state_dir.parent / "disk"
    disk.mkdir()
    with image.open("wb") as file:
        file.truncate(16 * 1024**2)
    _run("mkfs.ext4", "-q", str(image))
    _run("mount", "-o", "loop", str(image), str(disk))
    disk.chmod(0o777)
    yield disk
    _run("umount", str(disk))


@contextmanager
def frozen(disk: Path) -> Generator[None]:
    """Have a file system answer no write."""
    _run("fsfreeze", "--freeze", str(disk))
    try:
        yield
    finally:
        _run("fsfreeze", "--unfreeze", str(disk))


def _run(*command: str) -> None:
    subprocess.run(command, check=True)


async def test_a_process_that_cannot_be_killed_is_reported_and_keeps_nobody(
    worker: Worker, gate: Gate, disk: Path
) -> None:
    """Its stop goes on, other jobs do not notice, and once the kernel lets go of it, nothing of it is left."""
    job = await worker.start(shell(f"echo ready; read x < {gate.path}; echo data > {disk}/file"), "ada")
    await said(worker, job)
    (writer,) = job_pids(job.id)
    with frozen(disk):
        gate.open()
        await until(lambda: Path(f"/proc/{writer}/stat").read_text().rpartition(")")[2].split()[0] == "D")
        stop = asyncio.ensure_future(worker.stop(job.id, by="bob", grace=timedelta(0)))
        held = await until_job(worker.get, job.id, lambda job: job.unkillable_pids)
        assert (held.state, held.unkillable_pids) == (JobState.RUNNING, (writer,))
        assert held.stop is not None
        assert not stop.done()
        other = await worker.wait((await worker.start(shell("exit 3"), "ada")).id)
        assert (other.state, other.end and other.end.exit_code) == (JobState.FINISHED, 3)
    stopped = await stop
    assert (stopped.state, stopped.unkillable_pids) == (JobState.STOPPED, ())
    await until(lambda: not groups_of(job.id))  # supervisors remove theirs after they have told the end
