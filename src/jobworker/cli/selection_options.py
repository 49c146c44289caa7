"""What `stream` says about the part of an output that is wanted."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar

import click

from jobworker.cli.params import Moment

if TYPE_CHECKING:
    from jobworker.client import SelectionFields

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


class SelectionOptions(TypedDict):
    """The values of the options."""

    offset: int
    tail: int | None
    since: datetime | None
    until: datetime | None
    stdout_only: bool
    stderr_only: bool
    timestamps: bool


_OPTIONS = (
    click.option(
        "--offset",
        type=click.IntRange(min=0),
        default=0,
        metavar="BYTES",
        help="Where in the output of one job to begin; 0, the default, is the first byte that is kept.",
    ),
    click.option("--tail", type=click.IntRange(min=0), metavar="N", help="Begin N lines before the present end."),
    click.option(
        "--since",
        type=Moment(),
        metavar="TIME",
        help="Only what was written since: a time (local without a zone, today without a date), or how long ago.",
    ),
    click.option("--until", type=Moment(), metavar="TIME", help="Only what was written before."),
    click.option("--stdout-only", is_flag=True, help="Only standard output, of jobs whose streams are told apart."),
    click.option("--stderr-only", is_flag=True, help="Only standard error, likewise."),
    click.option("--timestamps", "-t", is_flag=True, help="Begin each line with the time at which it was written."),
)


def selection_options(command: Decorated) -> Decorated:
    """Give a command all options of `SelectionOptions`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def check_selection(options: SelectionOptions, *, one_job: bool) -> None:
    """Raise `click.UsageError` for options that exclude each other or do not fit the number of jobs."""
    context = click.get_current_context()
    if options["offset"] and not one_job:
        raise click.UsageError("--offset is for one job, not for several", context)
    if options["stdout_only"] and options["stderr_only"]:
        raise click.UsageError("give --stdout-only or --stderr-only, not both", context)
    if options["tail"] is not None and options["offset"]:
        raise click.UsageError("give --tail or --offset, not both", context)
    if options["since"] and options["until"] and options["since"] > options["until"]:
        raise click.UsageError("--until is before --since", context)


def selection_from(options: SelectionOptions) -> SelectionFields:
    """What they say, but for the offset."""
    from jobworker.core.output import Stream

    streams = [Stream.STDOUT] * options["stdout_only"] + [Stream.STDERR] * options["stderr_only"]
    return {
        "tail": options["tail"],
        "since": options["since"],
        "until": options["until"],
        "streams": streams,
        "times": options["timestamps"],
    }
