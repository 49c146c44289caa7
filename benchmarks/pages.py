"""The first page of a list, of a store with many jobs; `python -m benchmarks.listing` shows each filter."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.figures import Measured
from benchmarks.listing import filters
from jobworker.core.query import DEFAULT_PAGE_SIZE, JobFilter
from jobworker.store.sqlite import SqliteStore

_TIMES = 10


def measure(database: Path, count: int) -> Iterator[Measured]:
    """One round on a database that `benchmarks.listing.fill` has made."""
    pages = asyncio.run(_pages(database, list(filters(count).values())))
    finding = [milliseconds for milliseconds, jobs in pages if jobs]
    in_vain = [milliseconds for milliseconds, jobs in pages if not jobs]
    yield Measured(name=f"first page of {count} jobs, no filter", value=pages[0][0], unit="ms")
    yield Measured(name=f"the slowest of {len(finding)} kinds of filter that find jobs", value=max(finding), unit="ms")
    yield Measured(name="two labels that many jobs have, but none has both", value=max(in_vain), unit="ms")


async def _pages(database: Path, wanted: list[JobFilter]) -> list[tuple[float, int]]:
    async with await SqliteStore.open(database) as store:
        return [await _page(store, where) for where in wanted]


async def _page(store: SqliteStore, where: JobFilter) -> tuple[float, int]:
    """The median of some times, in milliseconds, and how many jobs are found."""
    times: list[float] = []
    found = 0
    for _ in range(_TIMES):
        began = time.perf_counter()
        found = len((await store.page(where, size=DEFAULT_PAGE_SIZE)).jobs)
        times.append((time.perf_counter() - began) * 1000)
    return statistics.median(times), found
