"""The SQL texts that are packaged with the store."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable


@cache
def query(name: str) -> str:
    """The text of queries/NAME.sql."""
    return _folder("queries").joinpath(f"{name}.sql").read_text("utf-8")


def migrations() -> list[str]:
    """The scripts of migrations/NNNN_name.sql in order; the first one makes version 1 of the schema."""
    scripts = sorted(_folder("migrations").iterdir(), key=lambda script: script.name)
    return [script.read_text("utf-8") for script in scripts]


def statements(script: str) -> Iterator[str]:
    """The statements of a script, each of which must end with its line.

    sqlite3's own `executescript` is no use in a transaction: it begins with a commit.
    """
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def _folder(name: str) -> Traversable:
    return resources.files("jobworker.store").joinpath(name)
