"""A job is there for whom it is asked; for others, looking for it is like looking for none."""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from jobworker.core.errors import JobNotFoundError
from jobworker.core.job import Job
from jobworker.core.spec import JobSpec
from jobworker.store.sqlite import SqliteStore
from jobworker.worker.worker import Worker
from tests.unit.worker.place import Place

SPEC = JobSpec(argv=("true",))


class Watched(SqliteStore):
    """Notes each look at a job."""

    looks: list[str | None]

    async def get(self, job_id: str, *, owner: str | None = None) -> Job | None:
        """As it is."""
        self.looks.append(owner)
        return await super().get(job_id, owner=owner)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncGenerator[Watched]:
    """An empty one."""
    async with await Watched.open(tmp_path / "jobs.db") as opened:
        opened.looks = []
        yield opened


async def test_others_look_for_a_job_as_for_none(store: Watched) -> None:
    """Whether a job runs, has ended or never was: one look, which does not tell of it, and the same refusal."""
    place = Place()
    async with Worker(place, store, durability="process") as worker:
        running = await worker.start(SPEC, "ada")
        ended = await worker.start(SPEC, "ada")
        place.played(ended).end()
        await worker.wait(ended.id)
        for job_id in (running.id, ended.id, str(uuid.uuid4())):
            store.looks.clear()
            with pytest.raises(JobNotFoundError, match=f"^no job '{job_id}'$"):
                await worker.get(job_id, owner="bob")
            assert store.looks == ["bob"]


async def test_a_running_job_is_told_from_memory(store: Watched) -> None:
    """Its owner, and who asks for anybody's, do not wait for the store."""
    async with Worker(Place(), store, durability="process") as worker:
        running = await worker.start(SPEC, "ada")
        store.looks.clear()
        for owner in ("ada", None):
            assert await worker.get(running.id, owner=owner) == running
        assert store.looks == []
