"""Retention goes on, and starts are answered, when the files of jobs cannot be looked at for a while."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import pytest

from jobworker.core.errors import JobNotFoundError, ServerUnavailableError
from jobworker.core.output import OutputPolicy
from jobworker.core.spec import JobSpec
from jobworker.runtime.gaps import Extent
from jobworker.store.sqlite import SqliteStore
from jobworker.worker import worker as worker_
from jobworker.worker.retention import Retention
from jobworker.worker.worker import Worker
from tests.support.polling import until
from tests.unit.worker.place import Place

SPEC = JobSpec(argv=("true",))


class Exhausted(Place):
    """Has no descriptors for so many looks: at outputs, or at the disk."""

    failures = 0
    disk_failures = 0

    def _look(self) -> None:
        if self.failures:
            self.failures -= 1
            raise OSError(errno.EMFILE, "Too many open files")

    def output_extent(self, job_id: str) -> Extent:
        """There is none."""
        self._look()
        return super().output_extent(job_id)

    async def output_extents(self, job_ids: Sequence[str]) -> list[Extent]:
        """There is none."""
        self._look()
        return await super().output_extents(job_ids)

    async def disk_bytes(self) -> int:
        """None."""
        if self.disk_failures:
            self.disk_failures -= 1
            raise OSError(errno.EMFILE, "Too many open files")
        return await super().disk_bytes()


async def test_retention_goes_on_after_a_lack_of_descriptors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What could not be removed is removed at a later try, though jobs run."""
    monkeypatch.setattr(worker_, "RETENTION_INTERVAL", 0.001)
    place = Exhausted()
    async with (
        asyncio.timeout(10),
        await SqliteStore.open(tmp_path / "jobs.db") as store,
        Worker(place, store, durability="process", retention=Retention(age=timedelta(0))) as worker,
    ):
        await worker.start(SPEC, "ada")
        place.failures = 2
        await until(lambda: not place.failures)
        ended = await worker.start(SPEC, "ada")
        place.played(ended).end()
        await worker.wait(ended.id)
        await _is_gone(worker, ended.id)


async def _is_gone(worker: Worker, job_id: str) -> None:
    async def gone() -> bool:
        try:
            await worker.get(job_id)
        except JobNotFoundError:
            return True
        return False

    await until(gone)  # it works in the background


async def test_a_start_says_that_the_space_cannot_be_told(tmp_path: Path) -> None:
    """It is refused, to be tried again, and the next one looks again."""
    place = Exhausted()
    async with (
        await SqliteStore.open(tmp_path / "jobs.db") as store,
        Worker(place, store, durability="process", output=OutputPolicy(max_state_bytes=1000)) as worker,
    ):
        place.disk_failures = 1
        with pytest.raises(ServerUnavailableError):
            await worker.start(SPEC, "ada")
        assert not place.jobs
        await worker.start(SPEC, "ada")
