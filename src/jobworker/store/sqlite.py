"""Jobs remembered in a SQLite database."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Concatenate, ParamSpec, Self, TypeVar

from jobworker.core.errors import StoreError
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
Change = Callable[[sqlite3.Connection], None]

GATHERING = 0.005  # seconds that a change waits for others, to be made with them

_WHAT = "the job database"


class SqliteStore:
    """A `JobStore` in one SQLite file; made by `open`, and an async context manager that closes itself.

    One thread owns the one connection: the event loop never waits for the disk, and calls are done in the order in
    which they are made. Jobs that are put at about the same time are written in one transaction, a moment later, or at
    once when somebody asks for something, as a start does that has a request id.
    """

    def __init__(self, connection: sqlite3.Connection, thread: ThreadPoolExecutor) -> None:
        self._connection = connection
        self._thread = thread
        self._changes: list[tuple[Change, asyncio.Future[None]]] = []

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

    async def put(self, job: Job) -> None:
        """Remember all that is known of a job; see `JobStore.put`."""
        loop = asyncio.get_running_loop()
        if not self._changes:
            loop.call_later(GATHERING, self._make_changes)
        made: asyncio.Future[None] = loop.create_future()
        self._changes.append((partial(_put, job=job), made))
        await made

    async def remove(self, job_id: str) -> None:
        """Forget a job and its request id."""
        await self._run(_remove, job_id)

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
        self._make_changes()
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
        self._make_changes()

        def call() -> Result:
            try:
                return function(self._connection, *args, **kwargs)
            except sqlite3.Error as error:
                raise store_error(_WHAT, error) from error

        return await asyncio.wrap_future(self._submit(call))

    def _make_changes(self) -> None:
        """Have the changes made that wait, if any."""
        if not self._changes:
            return
        changes, self._changes = self._changes, []
        loop = asyncio.get_running_loop()

        def call() -> None:
            loop.call_soon_threadsafe(_tell, changes, _make(self._connection, [change for change, _ in changes]))

        try:
            self._submit(call)
        except StoreError as error:
            _tell(changes, [error] * len(changes))

    def _submit(self, call: Callable[[], Result]) -> Future[Result]:
        try:
            return self._thread.submit(call)
        except RuntimeError:
            raise StoreError("the job database is closed") from None


def _make(connection: sqlite3.Connection, changes: Sequence[Change]) -> list[Exception | None]:
    """Make changes, together or, where one of them cannot be made, each by itself; what has kept each from it."""
    try:
        with transaction(connection):
            for change in changes:
                change(connection)
    except sqlite3.OperationalError as error:  # the database is locked, its disk is full: no change is to blame
        return [store_error(_WHAT, error) for _ in changes]
    except Exception as error:  # noqa: BLE001 - handed on to who waits for it
        if len(changes) == 1:
            return [store_error(_WHAT, error) if isinstance(error, sqlite3.Error) else error]
        return [result for change in changes for result in _make(connection, [change])]
    return [None] * len(changes)


def _tell(changes: Sequence[tuple[Change, asyncio.Future[None]]], results: Sequence[Exception | None]) -> None:
    for (_, made), error in zip(changes, results, strict=True):
        if made.done():  # its caller has given up
            continue
        if error is None:
            made.set_result(None)
        else:
            made.set_exception(error)


def _put(connection: sqlite3.Connection, job: Job) -> None:
    if connection.execute(query("update_job"), changing_row(job)).rowcount:
        return
    row = job_row(job)
    try:
        connection.execute(query("add_job"), row)
    except sqlite3.IntegrityError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_CONSTRAINT_UNIQUE:
            raise
        connection.execute(query("add_job"), row | {"request_id": None})
    labels = [{"id": job.id, "key": key, "value": value} for key, value in job.spec.labels.items()]
    connection.executemany(query("add_label"), labels)


def _remove(connection: sqlite3.Connection, job_id: str) -> None:
    connection.execute("DELETE FROM jobs WHERE id = ?", (job_id,))  # the labels go by their foreign key


def _find(connection: sqlite3.Connection, condition: str, *values: str) -> Job | None:
    row = connection.execute(f"SELECT {COLUMNS} FROM jobs WHERE {condition}", values).fetchone()  # noqa: S608 - constants
    return None if row is None else job_from_row(row)


def _ids(connection: sqlite3.Connection, states: Sequence[JobState]) -> list[str]:
    marks = ", ".join("?" * len(states))
    rows = connection.execute(f"SELECT id FROM jobs WHERE state IN ({marks})", states)  # noqa: S608 - question marks
    return [job_id for (job_id,) in rows]
