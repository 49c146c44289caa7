"""No call of the store reads a whole table, or sorts: what it costs does not grow with the number of ended jobs."""

from __future__ import annotations

import itertools
import re
import sqlite3
from collections.abc import AsyncGenerator, Awaitable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from jobworker.core.query import JobFilter
from jobworker.core.state import Cause, JobState
from jobworker.store.sqlite import SqliteStore
from jobworker.store.sqlite_file import open_database
from tests.support.jobs import NOON, accepted_job, ended, started

STATES = [frozenset[JobState](), frozenset({JobState.RUNNING}), frozenset({JobState.STOPPED, JobState.LOST})]
LABELS: list[dict[str, str]] = [{}, {"team": "physics"}, {"team": "physics", "size": "big", "odd": "no"}]
BOUNDS = [(None, None), (NOON, None), (None, NOON + timedelta(hours=1)), (NOON, NOON + timedelta(hours=1))]


class Watched:
    """A store whose statements are seen."""

    def __init__(self, path: Path) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._connection = self._thread.submit(open_database, path, "process").result()
        self._statements: list[str] = []
        self._thread.submit(self._connection.set_trace_callback, self._statements.append).result()
        self.store = SqliteStore(self._connection, self._thread)

    async def plan(self, call: Awaitable[object]) -> list[str]:
        """The steps by which SQLite did what a call asked for."""
        self._statements.clear()
        await call
        statements = [text for text in self._statements if not text.startswith(("-- TRIGGER", "BEGIN", "COMMIT"))]
        assert statements, "a plan of nothing proves nothing"
        return self._thread.submit(_explain, self._connection, statements).result()


def _explain(connection: sqlite3.Connection, statements: list[str]) -> list[str]:
    return [step[3] for text in statements for step in connection.execute(f"EXPLAIN QUERY PLAN {text}").fetchall()]


@pytest.fixture
async def watched(path: Path) -> AsyncGenerator[Watched]:
    """A watched store with a few jobs in it."""
    watched = Watched(path)
    for cause in Cause:
        await watched.store.put(ended(accepted_job(labels=LABELS[-1]), cause))
    yield watched
    await watched.store.close()


def assert_direct(plan: list[str]) -> None:
    """Each step goes straight to its rows, in an order that an index has."""
    assert plan
    for step in plan:
        assert not re.match(r"SCAN .*\b(jobs|job_labels|listed)\b", step), plan
        assert "TEMP B-TREE" not in step, plan


@pytest.mark.parametrize("owner", [None, "ada"])
@pytest.mark.parametrize("labels", LABELS, ids=str)
@pytest.mark.parametrize("bounds", BOUNDS)
async def test_every_list_is_read_from_an_index(
    watched: Watched, owner: str | None, labels: dict[str, str], bounds: tuple[datetime | None, datetime | None]
) -> None:
    """Both the first page and the next are ranges of the index that knows all conditions but further labels."""
    index = f"INDEX {'job_labels' if labels else 'jobs'}_by_{'owner' if owner else 'state'} "
    for states in STATES:
        where = JobFilter(states=states, owner=owner, labels=labels, created_after=bounds[0], created_before=bounds[1])
        first = await watched.store.page(where, size=1)
        for token in {None, first.next_page_token}:
            plan = await watched.plan(watched.store.page(where, size=1, token=token))
            assert_direct(plan)
            assert sum(index in step for step in plan) >= len(states or JobState), plan


@pytest.mark.parametrize("labels", LABELS, ids=str)
async def test_the_beginning_of_an_id_goes_to_its_rows(watched: Watched, labels: dict[str, str]) -> None:
    """Whatever else is asked for, only jobs whose id begins so are read; these are sorted."""
    for owner, states in itertools.product([None, "ada"], STATES):
        where = JobFilter(states=states, owner=owner, labels=labels, id_prefix="abcd")
        plan = await watched.plan(watched.store.page(where, size=1))
        ranges = [step for step in plan if "listed" in step]
        assert len(ranges) == len(states or JobState)
        assert all("(id>? AND id<?)" in step for step in ranges), plan


async def test_every_other_call_goes_to_its_rows(watched: Watched) -> None:
    """Neither finding a job, nor a change of one, nor asking which are open reads the others."""
    store = watched.store
    job = accepted_job(request_id="r-1", labels=LABELS[-1])
    assert_direct(await watched.plan(store.put(job)))
    assert_direct(await watched.plan(store.put(started(job))))
    assert_direct(await watched.plan(store.put(ended(job))))
    assert_direct(await watched.plan(store.get(job.id)))
    assert_direct(await watched.plan(store.find_request("ada", "r-1")))
    assert_direct(await watched.plan(store.open_ids()))
    assert_direct(await watched.plan(store.remove(job.id)))
    assert all("COVERING INDEX" in step for step in await watched.plan(store.ended_ids()))
