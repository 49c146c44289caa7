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
    medians = asyncio.run(_pages(database, filters(count)))
    yield Measured(name=f"first page of {count} jobs, no filter", value=medians["everything"], unit="ms")
    yield Measured(name=f"the slowest of {len(medians)} kinds of filter", value=max(medians.values()), unit="ms")


async def _pages(database: Path, wanted: dict[str, JobFilter]) -> dict[str, float]:
    async with await SqliteStore.open(database) as store:
        return {name: await _page(store, where) for name, where in wanted.items()}


async def _page(store: SqliteStore, where: JobFilter) -> float:
    times: list[float] = []
    for _ in range(_TIMES):
        began = time.perf_counter()
        await store.page(where, size=DEFAULT_PAGE_SIZE)
        times.append((time.perf_counter() - began) * 1000)
    return statistics.median(times)
