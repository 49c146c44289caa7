"""Jobs remembered in a SQLite database."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Concatenate, ParamSpec, Self, TypeVar

from jobworker.core.errors import RequestIdReusedError, StoreError
from jobworker.core.job import Job
from jobworker.core.query import JobFilter, JobPage
from jobworker.core.state import JobState
from jobworker.store.base import Durability
from jobworker.store.sql import query
from jobworker.store.sqlite_file import open_database, store_error, transaction
from jobworker.store.sqlite_page import read_page
from jobworker.store.sqlite_rows import COLUMNS, changing_row, job_from_row, job_row

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class SqliteStore:
    """A `JobStore` in one SQLite file; made by `open`, and an async context manager that closes itself.

    One thread owns the one connection: the event loop never waits for the disk, and calls are done in the order in
    which they are made.
    """

    def __init__(self, connection: sqlite3.Connection, thread: ThreadPoolExecutor) -> None:
        self._connection = connection
        self._thread = thread

    @classmethod
    async def open(cls, path: Path, *, durability: Durability = "process") -> Self:
        """Open the database, made or migrated as needed; its folder must exist.

        Raises `StoreError`, whose text says what to do, for a file that is damaged, from a newer release or another
        program, or that cannot be written. A file that is refused for what it holds is left as it was.
        """
        thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="job-store")
        opening = thread.submit(open_database, path, durability)
        try:
            return cls(await asyncio.wrap_future(opening), thread)
        except BaseException:
            thread.submit(lambda: opening.result().close())  # where it opened all the same, after a cancellation
            thread.shutdown(wait=False)
            raise

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def add(self, job: Job) -> None:
        """Remember a job with all that is known of it. Raises `RequestIdReusedError`."""
        await self._run(_add, job)

    async def update(self, job: Job) -> None:
        """Replace what is remembered of a job's start, stop, end, limits and output size, until it has an end."""
        await self._run(_change, query("update_job"), changing_row(job))

    async def remove(self, job_id: str) -> None:
        """Forget a job and its request id."""
        # The labels go by their foreign key
        await self._run(_change, "DELETE FROM jobs WHERE id = :id", {"id": job_id})

    async def get(self, job_id: str, *, owner: str | None = None) -> Job | None:
        """One job, of this owner if one is given."""
        if owner is None:
            return await self._run(_find, "id = ?", job_id)
        return await self._run(_find, "id = ? AND owner = ?", job_id, owner)

    async def find_request(self, owner: str, request_id: str) -> Job | None:
        """The job that was started with this request id."""
        return await self._run(_find, "owner = ? AND request_id = ?", owner, request_id)

    async def page(self, where: JobFilter, *, size: int, token: str | None = None) -> JobPage:
        """A page of jobs, newest first; at most `size`, and fewer where they are large."""
        return await self._run(read_page, where, size=size, token=token)

    async def open_ids(self) -> list[str]:
        """Ids of all jobs that have no end recorded."""
        return await self._run(_ids, [state for state in JobState if not state.ended])

    async def ended_ids(self) -> set[str]:
        """Ids of all jobs that have an end recorded."""
        return set(await self._run(_ids, [state for state in JobState if state.ended]))

    async def close(self) -> None:
        """Finish the calls that are under way, and let go of the file. Later calls raise `StoreError`."""
        try:
            closing = self._thread.submit(self._connection.close)
        except RuntimeError:  # it is closed already
            return
        self._thread.shutdown(wait=False)
        await asyncio.shield(asyncio.wrap_future(closing))

    async def _run(
        self,
        function: Callable[Concatenate[sqlite3.Connection, Arguments], Result],
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> Result:
        """Call a function with the connection, in its thread."""

        def call() -> Result:
            try:
                return function(self._connection, *args, **kwargs)
            except sqlite3.Error as error:
                raise store_error("the job database", error) from error

        try:
            future = self._thread.submit(call)
        except RuntimeError:
            raise StoreError("the job database is closed") from None
        return await asyncio.wrap_future(future)


def _add(connection: sqlite3.Connection, job: Job) -> None:
    labels = [{"id": job.id, "key": key, "value": value} for key, value in job.spec.labels.items()]
    try:
        with transaction(connection):
            connection.execute(query("add_job"), job_row(job))
            connection.executemany(query("add_label"), labels)
    except sqlite3.IntegrityError as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_CONSTRAINT_UNIQUE and job.request_id is not None:
            raise RequestIdReusedError(job.request_id) from None
        if error.sqlite_errorcode == sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY:
            raise StoreError(f"job {job.id} is in the job database already") from error
        raise


def _change(connection: sqlite3.Connection, text: str, parameters: Mapping[str, str | int | None]) -> None:
    connection.execute(text, parameters)


def _find(connection: sqlite3.Connection, condition: str, *values: str) -> Job | None:
    row = connection.execute(f"SELECT {COLUMNS} FROM jobs WHERE {condition}", values).fetchone()  # noqa: S608 - constants
    return None if row is None else job_from_row(row)


def _ids(connection: sqlite3.Connection, states: Sequence[JobState]) -> list[str]:
    marks = ", ".join("?" * len(states))
    rows = connection.execute(f"SELECT id FROM jobs WHERE state IN ({marks})", states)  # noqa: S608 - question marks
    return [job_id for (job_id,) in rows]
