"""A program for a mount namespace of its own: it makes a disk misbehave under a store, and prints what comes of it.

Arguments: what is wrong with the disk, one of `FAULTS`, and an empty folder. It prints a JSON object.
"""

from __future__ import annotations

import asyncio
import json
import resource
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

from jobworker.core.errors import StoreError
from jobworker.core.query import JobFilter
from jobworker.core.spec import JobSpec
from jobworker.store.sqlite import SqliteStore
from jobworker.store.sqlite_file import open_database
from tests.support.jobs import accepted_job, ended, started

DISK_BYTES = 4 * 1024 * 1024
BALLAST_BYTES = 1024 * 1024  # what is deleted to make room
LARGE = JobSpec(argv=("x" * 10_000,), labels={"team": "physics"})

Findings = dict[str, object]


async def fills_up(path: Path, make_room: Callable[[], None]) -> Findings:
    """Write until there is no room, look at what is there, make room, and go on."""
    async with await SqliteStore.open(path) as store:
        first = started(accepted_job(spec=LARGE))
        await store.put(first)
        added, refused = {first.id}, None
        while refused is None:
            job = started(accepted_job(spec=LARGE))
            try:
                await store.put(job)
                added.add(job.id)
            except StoreError as error:
                refused = str(error)
        there = await listed(store)
        make_room()
        for job in (started(accepted_job(spec=LARGE)) for _ in range(5)):
            await store.put(job)
            added.add(job.id)
        await store.put(ended(first))
        ended_ids = await store.ended_ids()
    async with await SqliteStore.open(path) as store:
        there_at_last = await listed(store)
    with closing(open_database(path, "process")) as connection:
        integrity = connection.execute("PRAGMA integrity_check").fetchone()[0]
    return {
        "refusal": refused,
        "exact_when_full": there <= added and len(there) == len(added) - 5,
        "exact_at_last": there_at_last == added,
        "ended": ended_ids == {first.id},
        "integrity": integrity,
    }


async def listed(store: SqliteStore) -> set[str]:
    """The ids of all jobs, read by their label, so that label and job are both there."""
    ids: set[str] = set()
    token = None
    while True:
        page = await store.page(JobFilter(labels={"team": "physics"}), size=1000, token=token)
        ids |= {job.id for job in page.jobs}
        token = page.next_page_token
        if token is None:
            return ids


async def refusal(path: Path) -> str | None:
    """What the opening says, if it does not succeed."""
    try:
        store = await SqliteStore.open(path)
    except StoreError as error:
        return str(error)
    await store.close()
    return None


def full(folder: Path) -> Findings:
    """The disk fills up while the store works on it."""
    mount(folder)
    ballast = folder / "ballast"
    ballast.write_bytes(bytes(BALLAST_BYTES))
    return asyncio.run(fills_up(folder / "jobs.db", ballast.unlink))


def limited(folder: Path) -> Findings:
    """The log of the store may not grow, as if the disk had a fault: a write fails with EFBIG."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (BALLAST_BYTES, resource.RLIM_INFINITY))
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    return asyncio.run(fills_up(folder / "jobs.db", lambda: resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)))


def full_at_start(folder: Path) -> Findings:
    """The disk is full when the store is opened; with room again it opens with all that it had."""
    mount(folder)
    path = folder / "jobs.db"
    asyncio.run(add_one(path))
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):  # no space left on device
        while True:
            file.write(bytes(4096))
    refused = asyncio.run(refusal(path))
    ballast.unlink()
    return {"refusal": refused, "then": asyncio.run(refusal(path))}


def read_only(folder: Path) -> Findings:
    """The disk is mounted read-only."""
    mount(folder)
    path = folder / "jobs.db"
    asyncio.run(add_one(path))
    subprocess.run(["mount", "-o", "remount,bind,ro", folder], check=True)
    return {"refusal": asyncio.run(refusal(path))}


async def add_one(path: Path) -> None:
    """Leave a database with one job."""
    async with await SqliteStore.open(path) as store:
        await store.put(started(accepted_job(spec=LARGE)))


def mount(folder: Path) -> None:
    """Put a small disk of its own there; it is gone with this process's mount namespace."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", folder], check=True)


FAULTS = {"full": full, "limited": limited, "full-at-start": full_at_start, "read-only": read_only}

if __name__ == "__main__":
    print(json.dumps(FAULTS[sys.argv[1]](Path(sys.argv[2]))))  # noqa: T201 - the test reads it
