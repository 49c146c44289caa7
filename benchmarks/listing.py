"""How long the first page of a list takes, by filter: `python -m benchmarks.listing --jobs 100000`.

The database is made in a temporary folder. Most of its jobs have ended; every kind of filter that `JobFilter` knows is
tried with values that many jobs have and with values that few have, and the page in the middle of the whole list.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import tempfile
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from sqlite3 import Connection

from jobworker.core.job import Job, JobEnd
from jobworker.core.query import DEFAULT_PAGE_SIZE, JobFilter
from jobworker.core.spec import JobSpec
from jobworker.core.state import Cause, JobState
from jobworker.store import page_token
from jobworker.store.sql import query
from jobworker.store.sqlite import SqliteStore
from jobworker.store.sqlite_file import open_database, transaction
from jobworker.store.sqlite_rows import job_row

ROUNDS = 50
FIRST_TIME = datetime(2025, 1, 1, tzinfo=UTC)
INTERVAL = timedelta(seconds=7)  # between two jobs
RUNNING = 20
RARE = 5  # jobs of the rare owner, and of the rare label


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=100_000, help="size of the database (default: %(default)s)")
    count: int = parser.parse_args().jobs
    with tempfile.TemporaryDirectory(prefix="jobworker-listing-") as folder:
        path = Path(folder, "jobs.db")
        seconds = fill(path, count)
        print(f"{count} jobs written in {seconds:.1f} s, {path.stat().st_size / 2**20:.0f} MiB")
        asyncio.run(measure(path, count))


def fill(path: Path, count: int) -> float:
    """Write the jobs, and return the seconds that it took."""
    started = time.perf_counter()
    connection = open_database(path, "process")
    _give_memory(connection)
    with transaction(connection):  # one for all: 100,000 durable ones would take longer than the measurement
        for job in made_up_jobs(count):
            connection.execute(query("add_job"), job_row(job))
            labels = [{"id": job.id, "key": key, "value": value} for key, value in job.spec.labels.items()]
            connection.executemany(query("add_label"), labels)
    connection.close()
    return time.perf_counter() - started


def multiply(path: Path, times: int) -> None:
    """Have so many times as many jobs, by copies of all that there are, which have other ids, other years, no labels.

    The database may be in use, by a server that writes nothing meanwhile.
    """
    connection = open_database(path, "process")
    _give_memory(connection)
    columns = [f'"{name}"' for _, name, *_ in connection.execute("PRAGMA table_info (jobs)")]
    changed = {
        '"id"': "printf('%08x', copy.value) || substr(id, 9)",
        '"create_time"': f"printf('%04d', {FIRST_TIME.year} - copy.value) || substr(create_time, 5)",
        '"request_id"': "NULL",
    }
    with transaction(connection):
        connection.execute(
            f"""WITH RECURSIVE copy (value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM copy WHERE value < {times - 1})
                INSERT INTO jobs ({", ".join(columns)})
                SELECT {", ".join(changed.get(column, column) for column in columns)} FROM copy CROSS JOIN jobs"""  # noqa: S608 - of our own words alone
        )
    connection.close()


def _give_memory(connection: Connection) -> None:
    """So much that SQLite spills nothing while one large transaction lasts."""
    connection.execute("PRAGMA cache_size = -262144")  # KiB


def made_up_jobs(count: int) -> Iterator[Job]:
    """Jobs in the order of their creation, the same in every run."""
    chance = random.Random(4242)  # noqa: S311 - repeatable, not secret
    rare = set(chance.sample(range(count), RARE))
    for number in range(count):
        create_time = FIRST_TIME + number * INTERVAL
        end_time = create_time + timedelta(seconds=chance.randrange(3600))
        cause = chance.choices([Cause.EXITED, Cause.STOPPED, Cause.LOST], weights=[900, 90, 10])[0]
        labels = {"project": "apollo", "half": "even" if number % 2 == 0 else "odd"}
        labels["third"] = ("zero", "one", "two")[number % 3]
        labels["sixth"] = ("zero", "one", "two", "three", "four", "five")[number % 6]
        if number in rare:
            labels["run"] = "best"
        yield Job(
            id=str(uuid.UUID(int=chance.getrandbits(128), version=4)),
            owner="rare" if number in rare else chance.choice(["ada", "bob", "eve"]),
            spec=JobSpec(argv=("sh", "-c", f"simulate --seed {number}"), env={"SEED": str(number)}, labels=labels),
            create_time=create_time,
            start_time=create_time,
            end=None if number % (count // RUNNING) == 0 else JobEnd(cause=cause, end_time=end_time, exit_code=0),
        )


def filters(count: int) -> dict[str, JobFilter]:
    """What is asked for, by the name that it has in the table."""
    middle = FIRST_TIME + count // 2 * INTERVAL
    running = frozenset({JobState.RUNNING})
    return {
        "everything": JobFilter(),
        "state: nine in ten": JobFilter(states=frozenset({JobState.FINISHED})),
        f"state: {RUNNING}": JobFilter(states=running),
        "two states": JobFilter(states=frozenset({JobState.STOPPED, JobState.LOST})),
        "owner: one in three": JobFilter(owner="ada"),
        f"owner: {RARE}": JobFilter(owner="rare"),
        "owner and state: few": JobFilter(owner="ada", states=running),
        "label: all": JobFilter(labels={"project": "apollo"}),
        f"label: {RARE}": JobFilter(labels={"run": "best"}),
        "label and state: few": JobFilter(labels={"project": "apollo"}, states=running),
        "label and owner: few": JobFilter(labels={"project": "apollo"}, owner="rare"),
        "two labels: all, few": JobFilter(labels={"project": "apollo", "run": "best"}),
        "two labels: one in six": JobFilter(labels={"half": "even", "third": "one"}),
        "two labels that never meet": JobFilter(labels={"half": "even", "sixth": "one"}),
        "older than half": JobFilter(created_before=middle),
        "a day in the middle": JobFilter(created_after=middle, created_before=middle + timedelta(days=1)),
        "all kinds at once": JobFilter(
            states=frozenset({JobState.FINISHED, JobState.LOST}),
            owner="ada",
            labels={"project": "apollo", "half": "odd"},
            created_before=middle,
        ),
    }


async def measure(path: Path, count: int) -> None:
    """Print the table."""
    async with await SqliteStore.open(path) as store:
        started = time.perf_counter()
        ended = await store.ended_ids()
        print(f"ids of {len(ended)} ended jobs: {(time.perf_counter() - started) * 1000:.0f} ms")
        print(f"first page of at most {DEFAULT_PAGE_SIZE} jobs, {ROUNDS} rounds, milliseconds:")
        print(f"  {'filter':28} {'jobs':>5} {'first':>7} {'median':>7} {'max':>7}")
        for name, where in filters(count).items():
            await report(store, name, where)
        middle = next(job for number, job in enumerate(made_up_jobs(count)) if number == count // 2)
        await report(store, "page in the middle", JobFilter(), page_token.encode(middle, JobFilter()))


async def report(store: SqliteStore, name: str, where: JobFilter, token: str | None = None) -> None:
    """Measure one filter and print its line; the first round finds nothing in SQLite's cache."""
    times: list[float] = []
    jobs = 0
    for _ in range(ROUNDS):
        started = time.perf_counter()
        jobs = len((await store.page(where, size=DEFAULT_PAGE_SIZE, token=token)).jobs)
        times.append((time.perf_counter() - started) * 1000)
    print(f"  {name:28} {jobs:5} {times[0]:7.2f} {statistics.median(times):7.2f} {max(times):7.2f}")


if __name__ == "__main__":
    main()
