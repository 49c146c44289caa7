"""Workers on real processes, once with a cgroup a job and once without."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path
from typing import Protocol

import pytest

from jobworker.executors import local
from jobworker.executors.base import CgroupMode
from jobworker.executors.place import Place, take_place
from jobworker.store.base import Durability
from jobworker.worker import OutputPolicy, Quotas, Retention, Worker, local_worker
from tests.support.workers import CGROUP_V2, Gate


class NewWorker(Protocol):
    """Makes workers on the directory of a test, one after the other."""

    def __call__(  # noqa: PLR0913 - as `local_worker`
        self,
        *,
        durability: Durability = "process",
        quotas: Quotas | None = None,
        retention: Retention | None = None,
        output: OutputPolicy | None = None,
        job_user: str | None = None,
        stop_jobs_on_exit: bool = False,
    ) -> AbstractAsyncContextManager[Worker]:
        """As `local_worker`."""
        ...


@pytest.fixture(params=["cgroup", "subreaper"])
def tree(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How the processes of a job are held together; a test that takes it runs with both ways."""
    choose(request.param, monkeypatch)
    return request.param


def without_groups(_mode: CgroupMode, name: str) -> AbstractContextManager[Place]:
    """As `take_place` where there are none."""
    return take_place("off", name)


def choose(tree: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have workers of this process use this way."""
    if tree == "subreaper":
        monkeypatch.setattr(local, "take_place", without_groups)
    elif not CGROUP_V2:
        pytest.skip("there is no cgroup v2 that this user may make groups in")


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    """Where a test's workers keep their jobs."""
    return tmp_path / "state"


@pytest.fixture
async def worker(state_dir: Path) -> AsyncGenerator[Worker]:
    """A worker, whose jobs are stopped in the end; with the tree that the test chose, or the best there is."""
    async with local_worker(state_dir, stop_jobs_on_exit=True) as worker:
        yield worker


@pytest.fixture
def new_worker(state_dir: Path) -> NewWorker:
    """Further workers on the same directory, one after the other."""
    return partial(local_worker, state_dir)


@pytest.fixture
def shared() -> Generator[Path]:
    """A folder that everybody may write to, jobs that run as "nobody" included."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o777)
        yield Path(name)


@pytest.fixture
def new_gate(shared: Path) -> Generator[Callable[[], Gate]]:
    """Gates for jobs to wait at."""
    with ExitStack() as stack:
        count = iter(range(1000))

        def make() -> Gate:
            gate = Gate(shared / f"gate{next(count)}")
            stack.callback(gate.close)
            return gate

        yield make


@pytest.fixture
def gate(new_gate: Callable[[], Gate]) -> Gate:
    """One gate."""
    return new_gate()


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
