"""`jobworker stats` and `jobworker top`: what jobs use."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING

import click

from jobworker.cli import text
from jobworker.cli.columns import SHORT_ID_CHARS, Layout, fitted_table
from jobworker.cli.exits import CliError
from jobworker.cli.job_ids import ask_about
from jobworker.cli.options import client_options, examples, output_option
from jobworker.cli.params import Duration, JobId, Utf8
from jobworker.cli.session import ask

if TYPE_CHECKING:
    from jobworker.client import AsyncClient
    from jobworker.core.job import Job
    from jobworker.core.usage import Usage

_CLEAR = "\x1b[H\x1b[2J"  # cursor home, screen empty
_INTERVAL = "2s"
_LEAST = timedelta(seconds=0.1)  # each look costs the server some file reads a job
_COLUMN = 10  # as wide as "1023.9 KiB"
_LAYOUT = Layout(
    shortest={"ID": SHORT_ID_CHARS, "OWNER": 8},
    dropped=("PEAK", "CPU TIME", "OWNER", "PROCS", "WRITE/S", "READ/S", "MEMORY"),
    last=16,
)
_FOLLOW_LAYOUT = Layout(shortest={}, dropped=("PEAK", "CPU TIME", "PROCS", "WRITE/S", "READ/S"), last=17)

interval_option = click.option(
    "--interval", type=Duration(_LEAST), default=_INTERVAL, show_default=True, help="The time between two looks."
)


@click.command(
    epilog=examples(
        "jobworker stats ID",
        "jobworker stats ID --follow --interval 10s",
        "jobworker stats ID --output json | jq .usage.memory_peak_bytes",
    )
)
@click.argument("job_id", metavar="ID", type=JobId())
@click.option("--follow", is_flag=True, help="Look again and again until the job has ended.")
@interval_option
@output_option
@client_options
def stats(job_id: str, follow: bool, interval: timedelta, output: str) -> None:  # noqa: FBT001 -- click gives it by name
    """Show what a job has used: CPU time, memory, I/O, processes.

    Up to now or, if it has ended, in all. It is read from the kernel at this moment; what the kernel does not tell is
    left out, or null. With --follow a line a look, and with --output json an object a line.
    """

    async def look(client: AsyncClient, found: str) -> None:
        await (_follow(client, found, interval, output) if follow else _look(client, found, output))

    ask_about(job_id, look)


async def _look(client: AsyncClient, job_id: str, output: str) -> None:
    from jobworker.cli.usage import job_and_usage, usage_rows

    job, usage = await job_and_usage(client, job_id)
    if output == "json":
        click.echo(_line(job, usage))
        return
    if usage is None:
        raise _not_known(job)
    click.echo(f"{'state':<9}  {_state(job)}")
    click.echo(f"{'wall time':<9}  {text.age(timedelta(seconds=usage.wall_seconds))}")
    for label, value in usage_rows(usage):
        click.echo(f"{label:<9}  {value}")


async def _follow(client: AsyncClient, job_id: str, interval: timedelta, output: str) -> None:
    import asyncio

    from jobworker.cli.usage import HEADER, Load, job_and_usage, usage_cells

    before: Usage | None = None
    header = ("TIME", *HEADER, "STATE")
    columns = text.terminal_columns()
    widths: Mapping[str, int] = {name: max(len(name), _COLUMN) for name in header[:-1]}
    widths = widths if columns is None else _FOLLOW_LAYOUT.fit(widths, columns)
    while True:
        job, usage = await job_and_usage(client, job_id)
        if output == "json":
            click.echo(_line(job, usage))
        elif usage is None:
            raise _not_known(job)
        else:
            time = text.age(timedelta(seconds=usage.wall_seconds))
            row = (time, *usage_cells(usage, Load.between(before, usage)), _state(job))
            click.echo("\n".join(fitted_table([row] if before else [header, row], header, widths, columns)))
        sys.stdout.flush()
        if job.end is not None:
            return
        before = usage
        with suppress(TimeoutError):  # the time for the next look
            async with asyncio.timeout(interval.total_seconds()):
                await client.wait(job_id)


def _state(job: Job) -> str:
    from jobworker.cli.view import ending

    how = ending(job)
    return f"{job.state.value} ({how})" if how else job.state.value


def _not_known(job: Job) -> CliError:
    return CliError(f"job {job.id} is {job.state.value}, and nobody knows what it has used")


def _line(job: Job, usage: Usage | None) -> str:
    from jobworker.cli.usage import usage_json

    return json.dumps(
        {
            "id": job.id,
            "name": job.spec.name,
            "owner": job.owner,
            "state": job.state.value,
            "paused": job.paused,
            "usage": usage_json(usage),
        }
    )


_SORTS = ("cpu", "memory", "io", "processes", "age")


@click.command(
    epilog=examples(
        "jobworker top",
        "jobworker top --sort memory --once",
        "jobworker top --output json | jq -s 'map(.usage.cpu_seconds) | add'",
    )
)
@click.option("--once", is_flag=True, help="Look once, as it does where stdout is no terminal.")
@interval_option
@click.option(
    "--sort", type=click.Choice(_SORTS), default="cpu", show_default=True, help="What to put first: the most."
)
@click.option("--owner", type=Utf8(), metavar="NAME", help="Only jobs of this owner.")
@output_option
@client_options
def top(once: bool, interval: timedelta, sort: str, owner: str | None, output: str) -> None:  # noqa: FBT001 -- click gives it by name
    """Show all running jobs and what they use, as it changes.

    Yours, or everybody's if you are an admin. CPU, READ/S and WRITE/S are since the look before, in the first one on
    average since the start; 100% is one CPU. Ctrl-C ends it. With --output json, one look and an object a line.
    """
    live = sys.stdout.isatty() and not once and output == "text"
    try:
        ask(lambda client: _top(client, owner, interval if live else None, sort, output))
    except KeyboardInterrupt:
        if not live:
            raise


async def _top(client: AsyncClient, owner: str | None, interval: timedelta | None, sort: str, output: str) -> None:
    import asyncio

    before: dict[str, Usage] = {}
    while True:
        found = [one async for one in client.usages(owner=owner)]
        if output == "json":
            for job, usage in found:
                click.echo(_line(job, usage))
            return
        shown = "\n".join(table(found, before, sort, text.terminal_size()))
        if interval is None:
            if found:
                click.echo(shown)
            else:
                text.say("no job is running")
            return
        click.echo(f"{_CLEAR}{shown}" if found else f"{_CLEAR}no job is running")
        before = {job.id: usage for job, usage in found}
        await asyncio.sleep(interval.total_seconds())  # time is what is waited for


def table(
    found: list[tuple[Job, Usage]], before: Mapping[str, Usage], sort: str, screen: os.terminal_size | None
) -> list[str]:
    """The lines of `top`: no more and no longer ones than the screen has, if there is one."""
    from jobworker.cli.usage import HEADER, Load, usage_cells
    from jobworker.cli.view import command_line

    loads = {job.id: Load.between(before.get(job.id), usage) for job, usage in found}

    def rank(one: tuple[Job, Usage]) -> float:
        job, usage = one
        load = loads[job.id]
        match sort:
            case "cpu":
                return load.cpus or 0
            case "memory":
                return usage.memory_bytes or 0
            case "io":
                return (load.read or 0) + (load.write or 0)
            case "processes":
                return usage.pids or 0
            case _:
                return usage.wall_seconds

    header = ("ID", "OWNER", *HEADER, "NAME OR COMMAND")
    rows: list[Sequence[str]] = [header]
    for job, usage in sorted(found, key=rank, reverse=True):
        what = ("(paused) " if job.paused else "") + (text.printable(job.spec.name or "") or command_line(job))
        rows.append((job.id, text.printable(job.owner), *usage_cells(usage, loads[job.id]), what))
    widths = {
        name: max(map(text.width, cells)) for name, cells in zip(header[:-1], zip(*rows, strict=True), strict=False)
    }
    if screen is None:
        return list(fitted_table(rows, header, widths, None))
    return list(fitted_table(rows[: screen.lines - 1], header, _LAYOUT.fit(widths, screen.columns), screen.columns))
