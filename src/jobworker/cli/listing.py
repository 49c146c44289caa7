"""Lists of jobs, printed as they come in."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

import click

from jobworker.cli import text
from jobworker.cli.columns import SHORT_ID_CHARS, Layout, fitted_table
from jobworker.cli.view import command_line, ending, job_json, state_colour
from jobworker.core.job import Job
from jobworker.core.state import JobState

_HEADER = ("ID", "STATE", "END", "NAME", "STARTED", "OWNER", "COMMAND")
_MEASURED = 100  # jobs whose cells decide the widths of the columns
_LAYOUT = Layout(
    shortest={"ID": SHORT_ID_CHARS, "NAME": 12, "END": 12}, dropped=("OWNER", "STARTED", "NAME", "END"), last=20
)


class JobPrinter(Protocol):
    """Takes jobs one by one."""

    def add(self, job: Job) -> None:
        """Print it, now or later."""
        ...

    def end(self) -> None:
        """Print what is left: there are no more."""
        ...


class JsonArray:
    """A JSON array, a job a line. It is closed at the end only, so that nobody takes a part of a list for all of it."""

    def __init__(self) -> None:
        self._opening = "["

    def add(self, job: Job) -> None:
        """Print it."""
        click.echo(f"{self._opening}\n{json.dumps(job_json(job))}", nl=False)
        self._opening = ","

    def end(self) -> None:
        """Close the array."""
        click.echo("[]" if self._opening == "[" else "\n]")


class Ids:
    """The ids alone, one a line."""

    def add(self, job: Job) -> None:
        """Print it."""
        click.echo(job.id)

    def end(self) -> None:
        """Nothing is left."""


class Table:
    """A table for people. `now` is the time that ages are told from, `columns` the width of the terminal, if any."""

    def __init__(self, *, now: datetime, columns: int | None) -> None:
        self._now = now
        self._columns = columns
        self._waiting: list[Sequence[str]] = []
        self._widths: Mapping[str, int] | None = None

    def add(self, job: Job) -> None:
        """Print it, once the widths of the columns are known."""
        self._waiting.append(self._row(job))
        if self._widths is not None or len(self._waiting) == _MEASURED:
            self._print()

    def end(self) -> None:
        """Print what is waiting."""
        if self._waiting:
            self._print()
        elif self._widths is None:
            text.say("there are no such jobs")

    def _row(self, job: Job) -> Sequence[str]:
        return (
            job.id,
            text.coloured(job.state.value, state_colour(job)),
            ending(job) or "-",
            text.printable(job.spec.name or "-"),
            f"{text.age(self._now - (job.start_time or job.create_time))} ago",
            text.printable(job.owner),
            command_line(job),
        )

    def _print(self) -> None:
        rows, self._waiting = self._waiting, []
        if self._widths is None:
            rows.insert(0, _HEADER)
            widths = {
                name: max(map(_width, cells)) for name, cells in zip(_HEADER, zip(*rows, strict=True), strict=True)
            }
            widths["STATE"] = max(map(len, JobState))  # it is not cut, and others may come
            del widths[_HEADER[-1]]
            self._widths = widths if self._columns is None else _LAYOUT.fit(widths, self._columns)
        for line in fitted_table(rows, _HEADER, self._widths, self._columns):
            click.echo(line)


def _width(cell: str) -> int:
    return text.width(click.unstyle(cell))
