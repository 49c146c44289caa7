"""A database of any earlier release becomes one of this release, or stays what it was."""

from __future__ import annotations

import re
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from importlib import resources
from pathlib import Path

import pytest

from jobworker.core.job import Job, JobEnd, StopRequest
from jobworker.core.query import JobFilter
from jobworker.core.spec import ChildPolicy, JobSpec
from jobworker.core.state import Cause, JobState
from jobworker.store import sqlite_file
from jobworker.store.sql import migrations, query, statements
from jobworker.store.sqlite import SqliteStore
from jobworker.store.sqlite_file import migrate, open_database, schema_version
from jobworker.store.sqlite_rows import job_row
from tests.support.jobs import accepted_job, ended

DATA = Path(__file__).parents[2] / "data"

# What tests/data/jobs-0.1.0.sql holds, oldest first
JOBS_0_1_0 = [
    Job(
        id="00000000-0000-4000-8000-000000000001",
        owner="ada",
        spec=JobSpec(argv=("true",)),
        create_time=datetime(2025, 11, 24, 6, 0, 0, 1, tzinfo=UTC),
    ),
    Job(
        id="00000000-0000-4000-8000-000000000002",
        owner="bob",
        request_id="1b9d6bcd-bbfd-4b2d-9b5d-ab8dfbbd4bed",
        spec=JobSpec(argv=("sleep", "60"), time_limit=timedelta(minutes=1)),
        create_time=datetime(2025, 11, 24, 6, 1, tzinfo=UTC),
        start_time=datetime(2025, 11, 24, 6, 1, 0, 2000, tzinfo=UTC),
        stop=StopRequest(
            requested_by="ada", request_time=datetime(2025, 11, 24, 6, 1, 30, tzinfo=UTC), grace=timedelta(seconds=2.5)
        ),
    ),
    Job(
        id="00000000-0000-4000-8000-000000000003",
        owner="ada",
        spec=JobSpec(
            argv=("sh", "-c", "echo it's \u00e4; exit 3", "\udcff"),
            env={"A": "\U0001f600"},
            cwd="/tmp",  # noqa: S108 - a text in a record
            name="night run",
            labels={"team": "physics", "size": "big"},
            child_policy=ChildPolicy.WAIT,
        ),
        create_time=datetime(2025, 11, 24, 6, 2, tzinfo=UTC),
        start_time=datetime(2025, 11, 24, 6, 2, 0, 2000, tzinfo=UTC),
        end=JobEnd(
            cause=Cause.EXITED,
            end_time=datetime(2025, 11, 24, 6, 3, tzinfo=UTC),
            exit_code=3,
            output_bytes=7,
            output_dropped_bytes=5,
        ),
        output_bytes=7,
    ),
    Job(
        id="00000000-0000-4000-8000-000000000004",
        owner="ada",
        spec=JobSpec(argv=("false",), labels={"team": "physics/2"}),
        create_time=datetime(2025, 11, 24, 6, 4, tzinfo=UTC),
        start_time=datetime(2025, 11, 24, 6, 4, 0, 2000, tzinfo=UTC),
        end=JobEnd(cause=Cause.SIGNALED, end_time=datetime(2025, 11, 24, 6, 5, tzinfo=UTC), signal=15),
    ),
]


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """A database of no schema."""
    with closing(sqlite3.connect(tmp_path / "any.db", isolation_level=None)) as connection:
        yield connection


def schema(connection: sqlite3.Connection) -> list[tuple[str, ...]]:
    """All that a database has of tables, indexes and triggers."""
    return connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY type, name").fetchall()


def columns(connection: sqlite3.Connection) -> set[str]:
    """The columns that the jobs have under the database's schema."""
    return {name for _, name, *_ in connection.execute("PRAGMA table_info (jobs)")}


def test_migrations_are_numbered_from_one() -> None:
    """The number in a script's name is the version that it leads to; none is missing or there twice."""
    names = sorted(script.name for script in resources.files("jobworker.store").joinpath("migrations").iterdir())
    assert all(re.fullmatch(r"\d{4}_[a-z_]+\.sql", name) for name in names)
    assert [int(name[:4]) for name in names] == list(range(1, len(names) + 1))
    assert len(migrations()) == len(names)


def test_every_statement_of_every_migration_is_seen() -> None:
    """What is left of a script after its last whole statement would be silently lost."""
    for script in migrations():
        rest = script
        for statement in statements(script):
            rest = rest.removeprefix(statement)
        assert not rest.strip()


@pytest.mark.parametrize("version", range(1, len(migrations()) + 1))
async def test_a_database_of_each_version_is_brought_up_to_date(path: Path, version: int) -> None:
    """Jobs written under an earlier schema are all there, and the schema is the same as that of a new database."""
    jobs = [ended(accepted_job(labels={"team": "physics"}, request_id="r-1")), accepted_job(owner="bob")]
    with closing(sqlite3.connect(path, isolation_level=None)) as old:
        migrate(old, migrations()[:version])
        for job in jobs:
            row = {name: value for name, value in job_row(job).items() if name in columns(old)}
            names = ", ".join(f'"{name}"' for name in row)
            old.execute(f"INSERT INTO jobs ({names}) VALUES ({', '.join(map(':{}'.format, row))})", row)  # noqa: S608 - constants
            for key, value in job.spec.labels.items():
                old.execute(query("add_label"), {"id": job.id, "key": key, "value": value})
    async with await SqliteStore.open(path) as store:
        assert [await store.get(job.id) for job in jobs] == jobs
        assert (await store.page(JobFilter(labels={"team": "physics"}), size=9)).jobs == (jobs[0],)
        assert await store.find_request("ada", "r-1") == jobs[0]
    with closing(open_database(path, "process")) as new, closing(sqlite3.connect(":memory:")) as fresh:
        fresh.isolation_level = None
        migrate(fresh, migrations())
        assert schema(new) == schema(fresh)
        assert schema_version(new) == len(migrations())


def test_a_migration_is_applied_once(connection: sqlite3.Connection) -> None:
    """Opening again, also with more scripts, applies only what is new."""
    scripts = ["CREATE TABLE first (x);\n", "CREATE TABLE second (x);\nINSERT INTO second VALUES (1);\n"]
    migrate(connection, scripts[:1])
    assert schema_version(connection) == 1
    for _ in range(2):
        migrate(connection, scripts)
        assert schema_version(connection) == 2
        assert connection.execute("SELECT x FROM second").fetchall() == [(1,)]


def test_a_migration_that_fails_leaves_nothing(connection: sqlite3.Connection) -> None:
    """Those before it stay applied, itself is undone wholly, and it can be tried again."""
    first = "CREATE TABLE first (x);\n"
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        migrate(connection, [first, "CREATE TABLE second (x);\nDROP TABLE first;\nINSERT INTO missing VALUES (1);\n"])
    assert schema_version(connection) == 1
    assert [name for _, name, *_ in schema(connection)] == ["first"]
    migrate(connection, [first, "CREATE TABLE second (x);\n"])
    assert schema_version(connection) == 2


async def test_a_migration_may_replace_a_table_that_others_refer_to(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To drop the old table of jobs does not empty their labels; afterwards the labels go with their job again."""
    job = ended(accepted_job(labels={"team": "physics"}))
    labelled = JobFilter(labels={"team": "physics"})
    async with await SqliteStore.open(path) as store:
        await store.put(job)
    replace_jobs = "CREATE TABLE new AS SELECT * FROM jobs;\nDROP TABLE jobs;\nALTER TABLE new RENAME TO jobs;\n"
    unique = "CREATE UNIQUE INDEX jobs_by_id ON jobs (id);\n"  # what a foreign key needs to refer to
    monkeypatch.setattr(sqlite_file, "migrations", lambda: [*migrations(), replace_jobs + unique])
    async with await SqliteStore.open(path) as store:
        assert (await store.page(labelled, size=9)).jobs == (job,)
        await store.remove(job.id)
    with closing(open_database(path, "process")) as connection:
        assert connection.execute("SELECT * FROM job_labels").fetchall() == []


def test_two_who_migrate_at_once_take_turns(tmp_path: Path) -> None:
    """Each script is applied once, whoever comes first, and nobody sees an error."""
    path = tmp_path / "shared.db"
    scripts = [f"CREATE TABLE table{number} (x);\n" for number in range(50)]
    together = threading.Barrier(2)
    errors: list[Exception] = []

    def open_and_migrate() -> None:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            together.wait()
            try:
                migrate(connection, scripts)
            except Exception as error:  # noqa: BLE001 - for the assertion
                errors.append(error)

    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        threads = [threading.Thread(target=open_and_migrate) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        assert schema_version(connection) == len(schema(connection)) == 50


def test_statements_are_whole() -> None:
    """A trigger's inner statements and semicolons in texts and comments end no statement."""
    script = """-- a comment; of two parts
CREATE TABLE a (x); -- the first
CREATE TRIGGER t AFTER INSERT ON a
BEGIN
    DELETE FROM a WHERE x = ';
';
    UPDATE a SET x = 1;
END;
INSERT INTO a VALUES (1);
"""
    found = list(statements(script))
    assert "".join(found) == script
    assert len(found) == 3


async def test_a_database_of_release_0_1_0_opens(path: Path) -> None:
    """The jobs that the first release wrote are read as they were, whatever the present release has changed."""
    with closing(sqlite3.connect(path, isolation_level=None)) as old:
        old.executescript((DATA / "jobs-0.1.0.sql").read_text("utf-8"))
    async with await SqliteStore.open(path) as store:
        assert [await store.get(job.id) for job in JOBS_0_1_0] == JOBS_0_1_0
        listed = [job for job in reversed(JOBS_0_1_0) if job.start_time is not None]
        assert list((await store.page(JobFilter(), size=9)).jobs) == listed
        assert (await store.page(JobFilter(owner="ada", labels={"team": "physics"}), size=9)).jobs == (JOBS_0_1_0[2],)
        assert await store.find_request("bob", "1b9d6bcd-bbfd-4b2d-9b5d-ab8dfbbd4bed") == JOBS_0_1_0[1]
        assert set(await store.open_ids()) == {job.id for job in JOBS_0_1_0 if job.state is JobState.RUNNING}
