"""Live output is seen on every file system, also where the kernel does not tell of what was spliced."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from jobworker.worker import local_worker
from tests.support.workers import LIMIT, Gate, said, shell


async def test_output_is_live_in_a_folder_of_the_root_file_system(gate: Gate) -> None:
    """In the VM and in containers that is an overlay, of which kernels before 6.4 say nothing after a splice."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        Path(folder).chmod(0o711)
        async with asyncio.timeout(LIMIT), local_worker(Path(folder) / "state", stop_jobs_on_exit=True) as worker:
            job = await worker.start(shell(f"read x < {gate.path}; echo ready; sleep 1000"), "ada")
            following = asyncio.ensure_future(said(worker, job))
            await asyncio.sleep(0)  # one turn of the loop, so that it has begun
            gate.open()
            await following
