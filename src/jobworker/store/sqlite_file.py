"""The database file: made, checked, opened and brought up to the present schema."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

from jobworker.core.errors import StoreError
from jobworker.store.base import Durability
from jobworker.store.sql import migrations, statements

APPLICATION_ID = 0x6A6F6273  # as migration 0001 writes it

_BUSY_SECONDS = 5.0  # a person who looks at the database with another program holds it for less
_SYNCHRONOUS: dict[Durability, str] = {"process": "NORMAL", "power": "FULL"}
_READ_ONLY = "cannot be written: make its file, its folder and their disk writable"
_REBUILD = (
    "move it away together with its -wal and -shm files and start again: "
    "the job directories hold every job, and a new index is built from them"
)


def open_database(path: Path, durability: Durability) -> sqlite3.Connection:
    """A connection in autocommit mode, for the calling thread alone. Raises `StoreError`."""
    what = _what(path)
    try:
        _make_file(path, what)
    except OSError as error:
        raise StoreError(f"cannot open {what}: {error.strerror}") from error
    with _connecting(path, what) as connection:
        _set_up(connection, what, durability)
    return connection


def check_database(path: Path) -> None:
    """Raise `StoreError` where `open_database` would refuse a file for what it holds. Nothing is changed."""
    what = _what(path)
    _check_file(path, what)
    with _connecting(path, what) as connection:
        _check_origin(connection, what, newest=len(migrations()))
    connection.close()


def migrate(connection: sqlite3.Connection, scripts: Sequence[str]) -> None:
    """Apply the scripts that the database has not seen, each wholly or not at all; script 1 leads to version 1."""
    applied = -1
    while applied < len(scripts):
        with transaction(connection):  # asked anew in each, as another process may be migrating too
            applied = schema_version(connection)
            if applied < len(scripts):
                for statement in statements(scripts[applied]):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {applied + 1}")


def schema_version(connection: sqlite3.Connection) -> int:
    """How many migrations the database has seen."""
    return _pragma(connection, "user_version")


@contextmanager
def transaction(connection: sqlite3.Connection) -> Generator[None]:
    """Everything in its body, or nothing."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # SQLite itself has ended it where the disk was full
            connection.execute("ROLLBACK")
        raise


def store_error(what: str, error: sqlite3.Error) -> StoreError:
    """What went wrong with the database, and what to do about it, in one line."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)  # errors of the module itself have none
    if code == sqlite3.SQLITE_IOERR_SHMSIZE:
        code = sqlite3.SQLITE_FULL  # which is why the -shm file could not get its size
    match code & 0xFF:  # the upper bits only tell apart where in SQLite it happened
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return StoreError(f"{what} is damaged: {_REBUILD}")
        case sqlite3.SQLITE_FULL:
            return StoreError(f"{what} cannot be written, because its disk is full: make room there")
        case sqlite3.SQLITE_READONLY:
            return StoreError(f"{what} {_READ_ONLY}")
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return StoreError(f"{what} is locked by another program for more than {_BUSY_SECONDS:.0f} s: end that one")
        case sqlite3.SQLITE_IOERR:
            return StoreError(f"{what} cannot be read or written ({error}): look at the health and space of its disk")
        case _:
            return StoreError(f"{what} cannot be used: {error}")


def _what(path: Path) -> str:
    return f"the job database {path}"


@contextmanager
def _connecting(path: Path, what: str) -> Generator[sqlite3.Connection]:
    """A connection that stays open, unless its body fails. Raises `StoreError` for errors of SQLite's."""
    try:
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=_BUSY_SECONDS, isolation_level=None
        )
    except sqlite3.Error as error:
        raise store_error(what, error) from error
    try:
        yield connection
    except sqlite3.Error as error:
        connection.close()
        raise store_error(what, error) from error
    except BaseException:
        connection.close()
        raise


def _make_file(path: Path, what: str) -> None:
    """Make an empty file if there is none, for its owner alone; SQLite gives the -wal and -shm files the same mode.

    A file that is there is never opened here: closing it again would drop the locks that SQLite may hold on it.
    """
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, mode=0o600))
    except FileExistsError:
        _check_file(path, what)
        if path.stat().st_mode & 0o077:  # copied back by somebody
            path.chmod(0o600)
    else:
        _sync_folder(path.parent)


def _check_file(path: Path, what: str) -> None:
    if not path.is_file():
        raise StoreError(f"{what} is no regular file: {_REBUILD}") from None
    if not all(os.access(name, os.R_OK | os.W_OK, effective_ids=True) for name in (path, path.parent)):
        raise StoreError(f"{what} {_READ_ONLY}") from None


def _sync_folder(folder: Path) -> None:
    """Make a new name in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _set_up(connection: sqlite3.Connection, what: str, durability: Durability) -> None:
    scripts = migrations()
    _check_origin(connection, what, newest=len(scripts))  # before anything is written to what may not be ours
    if (mode := connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]) != "wal":
        raise StoreError(f"{what} cannot have a write-ahead log (it says {mode!r}): keep it on a local disk")
    connection.execute(f"PRAGMA synchronous = {_SYNCHRONOUS[durability]}")
    migrate(connection, scripts)  # with foreign keys off, or a script could not replace a table that others refer to
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA secure_delete = ON")  # the environment of a removed job may hold secrets


def _check_origin(connection: sqlite3.Connection, what: str, *, newest: int) -> None:
    """Refuse what is no database of ours, and what a newer release has made."""
    empty = connection.execute("SELECT 1 FROM sqlite_master").fetchone() is None  # the first read; finds damage
    if not empty and _pragma(connection, "application_id") != APPLICATION_ID:
        raise StoreError(f"{what} belongs to another program: {_REBUILD}")
    if (version := schema_version(connection)) > newest:
        raise StoreError(
            f"{what} was written by a newer jobworker (schema {version}, this one knows {newest}): "
            f"install that one again, or {_REBUILD}"
        )


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])
