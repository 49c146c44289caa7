"""A worker for this machine, with all that belongs to it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from jobworker.core.errors import StoreError
from jobworker.core.output import OutputPolicy
from jobworker.executors.base import CgroupMode
from jobworker.executors.growth import OutputWatch
from jobworker.executors.local import LocalExecutor, LocalSettings
from jobworker.store.base import Durability
from jobworker.store.sqlite import SqliteStore
from jobworker.worker.quotas import Quotas
from jobworker.worker.retention import Retention
from jobworker.worker.worker import Worker


@asynccontextmanager
async def local_worker(  # noqa: PLR0913 - the settings of a worker, all by keyword
    state_dir: Path,
    *,
    durability: Durability = "process",
    quotas: Quotas | None = None,
    retention: Retention | None = None,
    output: OutputPolicy | None = None,
    job_user: str | None = None,
    cgroups: CgroupMode = "auto",
    stop_jobs_on_exit: bool = False,
    output_watch: OutputWatch = "auto",
    archive_url: str | None = None,
    on_packing_error: Callable[[str, OSError], None] = lambda _job_id, _error: None,
) -> AsyncGenerator[Worker]:
    """A worker that runs jobs on this machine and keeps everything in `state_dir`, which is made if need be.

    `durability` says what a start and an end outlive: "process", a kill of every process; "power", a power cut, too.
    Jobs run as `job_user`; without one as the user of this process, or as "nobody" where that is root. `cgroups` says
    what becomes of limits: "require" raises unless CPU, memory, I/O and processes can be limited, "auto" has those that
    can be, "off" none. `output_watch` says how followers are told of output: "inotify", "poll", or "auto", by inotify
    where that can tell. `archive_url` is where the output of ended jobs goes when `retention` says so: a path, or a URL
    that fsspec knows. `on_packing_error` is told of output that could not be compressed or archived; it is tried again.
    Raises `StoreError` (also where another worker uses the directory), `InvalidArgumentError` (the user, the archive)
    and `OSError`.
    """
    state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)  # noqa: ASYNC240 - once, before anything else runs
    output = output or OutputPolicy()
    settings = LocalSettings(
        directory=state_dir,
        sync=durability == "power",
        user=job_user,
        cgroups=cgroups,
        output_reserve=output.reserve,
        output_watch=output_watch,
        archive_url=archive_url,
    )
    with _only_user_of(state_dir):
        async with (
            await SqliteStore.open(state_dir / "jobs.db", durability=durability) as store,
            LocalExecutor.open(settings) as executor,
            Worker(
                executor,
                store,
                durability=durability,
                quotas=quotas,
                retention=retention,
                output=output,
                stop_jobs_on_exit=stop_jobs_on_exit,
                on_packing_error=on_packing_error,
            ) as worker,
        ):
            yield worker


@contextmanager
def _only_user_of(state_dir: Path) -> Generator[None]:
    """Hold the state directory against a second worker. The lock goes with the process, however it ends."""
    fd = os.open(state_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreError(f"the state directory {state_dir} is in use by another server") from None
        yield
    finally:
        os.close(fd)
