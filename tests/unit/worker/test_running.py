"""What a store cannot take is told to it again, until it has taken it; nothing is kept up by what is over."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from jobworker.core.errors import StoreError
from jobworker.core.job import Job
from jobworker.core.spec import JobSpec
from jobworker.store.sqlite import SqliteStore
from jobworker.worker import Worker
from tests.support.polling import until
from tests.unit.worker.place import Place

SPEC = JobSpec(argv=("true",))


class Crossing(SqliteStore):
    """Refuses jobs until `works` is set, and has looks for a job wait for one another, the last going on first."""

    works: bool
    looks: asyncio.Barrier
    tries: int

    async def add(self, job: Job) -> None:
        """Remember a job, or not."""
        if not self.works:
            raise StoreError("the disk is full")
        try:
            await super().add(job)
        finally:
            self.tries += 1

    async def get(self, job_id: str, *, owner: str | None = None) -> Job | None:
        """As it was before either went on."""
        found = await super().get(job_id, owner=owner)
        if self.works and self.looks.n_waiting < self.looks.parties:
            await self.looks.wait()
        return found


async def test_starts_are_let_in_again_when_a_job_ends_while_it_is_being_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its end and its start come to the store at once, and one of them too late: that keeps no later job out."""
    monkeypatch.setattr("jobworker.worker.running.RETRY", 0.001)
    place = Place()
    async with await Crossing.open(tmp_path / "jobs.db") as store, Worker(place, store, durability="process") as worker:
        store.works, store.looks, store.tries = False, asyncio.Barrier(2), 0
        job = await worker.start(SPEC, "ada")
        with pytest.raises(StoreError, match="full"):
            await worker.start(SPEC, "ada")
        store.works = True
        await until(lambda: store.looks.n_waiting)
        place.played(job).end()
        await worker.wait(job.id)
        await until(lambda: store.tries == 2)  # one of its end, one of its start

        async def started() -> Job | None:
            try:
                return await worker.start(SPEC, "ada")
            except StoreError:
                return None

        await until(started)
        assert job.id in {one.id for one in (await worker.list()).jobs}
