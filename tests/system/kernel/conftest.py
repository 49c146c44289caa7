"""Workers on a kernel with every controller: the VM's, or that of a machine that has them and a root to use them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncGenerator, Generator
from pathlib import Path

import pytest

from jobworker.worker import Worker, local_worker
from tests.support.kernel import missing_controllers
from tests.support.workers import Gate


@pytest.fixture(scope="session", autouse=True)
def _controllers() -> None:
    """Everything here needs them. In the VM nothing may skip, or nobody would notice."""
    if reason := missing_controllers():
        if os.environ.get("TEST_IN_VM"):
            pytest.fail(reason)
        pytest.skip(f"{reason}; test_vm.py runs this in a VM")


@pytest.fixture
def state_dir() -> Generator[Path]:
    """Where a test's workers keep their jobs; $TEST_DISK is a folder on a disk with I/O to limit."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("TEST_DISK")) as name:
        Path(name).chmod(0o711)
        yield Path(name) / "state"


@pytest.fixture
async def worker(state_dir: Path) -> AsyncGenerator[Worker]:
    """A worker, whose jobs are stopped in the end."""
    async with local_worker(state_dir, cgroups="require", stop_jobs_on_exit=True) as worker:
        yield worker


@pytest.fixture
def gate(state_dir: Path) -> Generator[Gate]:
    """What a job can wait at."""
    gate = Gate(state_dir.parent / "gate")
    yield gate
    gate.close()
