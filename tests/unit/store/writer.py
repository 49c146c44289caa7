"""A program that is to be killed: it puts jobs into a store, and prints the id of each as soon as `put` has returned.

Arguments: path of the database, durability, how many jobs. After the last one it waits for what never comes.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path
from typing import cast

from jobworker.store.base import Durability
from jobworker.store.sqlite import SqliteStore
from tests.support.jobs import accepted_job, ended


async def main(path: Path, durability: Durability, count: int) -> None:
    """Add, print, wait."""
    store = await SqliteStore.open(path, durability=durability)
    for _ in range(count):
        job = accepted_job(labels={"team": "physics"})
        await store.put(job)
        await store.put(ended(job))
        print(job.id, flush=True)  # noqa: T201 - the test reads it
    signal.pause()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), cast("Durability", sys.argv[2]), int(sys.argv[3])))
