"""What the store has answered outlives every process, and a power cut where that was asked for."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from jobworker.core.query import JobFilter
from jobworker.store.base import Durability
from jobworker.store.sqlite import SqliteStore
from jobworker.store.sqlite_file import open_database

ROOT = Path(__file__).parents[3]
EVERY = ["process", "power"]


def ids_of_a_killed_writer(path: Path, durability: Durability, *, adds: int, read: int) -> list[str]:
    """The ids that a writer printed until it was killed, right after `read` of them."""
    command = [sys.executable, "-m", "tests.unit.store.writer", path, durability, str(adds)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        ids = [writer.stdout.readline().strip() for _ in range(read)]
        writer.kill()
        ids += writer.stdout.read().splitlines()  # printed between the last one read and the kill
    assert all(ids)
    return [job_id for job_id in ids if len(job_id) == len(ids[0])]  # the last line may be cut


@pytest.mark.parametrize("durability", EVERY)
async def test_what_was_answered_outlives_a_kill(path: Path, durability: Durability) -> None:
    """A job is there, with its end, though its process was killed by SIGKILL right after the answer."""
    [job_id] = ids_of_a_killed_writer(path, durability, adds=1, read=1)
    async with await SqliteStore.open(path) as store:
        page = await store.page(JobFilter(labels={"team": "physics"}), size=9)
        assert [job.id for job in page.jobs] == [job_id]
        assert await store.ended_ids() == {job_id}


@pytest.mark.parametrize("durability", EVERY)
async def test_a_kill_in_the_middle_of_writing_loses_nothing_answered(path: Path, durability: Durability) -> None:
    """However many more were under way, all that were answered are there, and the database is whole."""
    ids = ids_of_a_killed_writer(path, durability, adds=1_000_000, read=50)
    async with await SqliteStore.open(path) as store:
        ended = await store.ended_ids()
        opened = await store.open_ids()
    assert set(ids) <= ended
    assert len(ended) + len(opened) <= len(ids) + 1, "at most one was under way"
    with closing(open_database(path, "process")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []


@pytest.mark.parametrize("durability, level", [("process", 1), ("power", 2)])
def test_power_makes_sqlite_sync_every_commit(path: Path, durability: Durability, level: int) -> None:
    """1 is NORMAL, which a kill cannot hurt; 2 is FULL, which syncs the log before a commit returns."""
    with closing(open_database(path, durability)) as connection:
        assert connection.execute("PRAGMA synchronous").fetchone() == (level,)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
