"""`jobworker status`, `list` and `info`: ask how things are."""

from __future__ import annotations

from contextlib import aclosing
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from jobworker.cli import text
from jobworker.cli.job_ids import ask_about
from jobworker.cli.options import client_options, examples, filter_options, job_argument, output_option
from jobworker.cli.params import Moment, Utf8
from jobworker.cli.session import ask

if TYPE_CHECKING:
    from jobworker.cli.listing import JobPrinter
    from jobworker.client import AsyncClient
    from jobworker.core.query import JobFilter


@click.command(
    epilog=examples(
        "jobworker status ID",
        "jobworker status ID --output json | jq -r .state",
        "jobworker status -j ID    (older form)",
    )
)
@job_argument
@output_option
@client_options
def status(job_id: str, output: str) -> None:
    """Show one job: where it is, what it has used, and if it has ended, how."""
    from jobworker.cli.usage import job_and_usage

    job, usage = ask_about(job_id, job_and_usage)

    from jobworker.cli.view import print_job

    print_job(job, output, usage)


@click.command(
    "list",
    epilog=examples(
        "jobworker list",
        "jobworker list --state RUNNING --label team=db",
        "jobworker stop $(jobworker list -q --state RUNNING --label team=db)",
        "jobworker list --since 2h --output json | jq -r '.[] | select(.exit_code != 0) | .id'",
    ),
)
@filter_options("Only jobs")
@click.option("--owner", type=Utf8(), metavar="NAME", help="Only jobs of this owner.")
@click.option("--since", type=Moment(), metavar="TIME", help="Only jobs created since: a time, or how long ago (2h).")
@click.option("--before", type=Moment(), metavar="TIME", help="Only jobs created before.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Only the N newest.")
@click.option("-q", "--quiet", is_flag=True, help="Print the ids alone, one a line.")
@click.option("--no-trunc", is_flag=True, help="Do not cut the table to the width of the terminal.")
@output_option
@client_options
def list_jobs(  # noqa: PLR0913, PLR0917 -- one for each option; click gives them by name
    states: tuple[str, ...],
    owner: str | None,
    labels: tuple[tuple[str, str], ...],
    since: datetime | None,
    before: datetime | None,
    limit: int | None,
    quiet: bool,  # noqa: FBT001 -- click gives it by name
    no_trunc: bool,  # noqa: FBT001 -- click gives it by name
    output: str,
) -> None:
    """List jobs, newest first.

    Yours, or everybody's if you are an admin. With --output json it is one JSON array with a job a line.
    """
    from jobworker.cli.listing import Ids, JsonArray, Table
    from jobworker.core.query import JobFilter
    from jobworker.core.state import JobState

    where = JobFilter(
        states=frozenset(JobState(state) for state in states),
        owner=owner,
        labels=dict(labels),
        created_after=since,
        created_before=before,
    )
    columns = None if no_trunc else text.terminal_columns()
    if quiet and output == "json":
        raise click.UsageError("give --quiet, or --output json, not both", click.get_current_context())
    printer = Ids() if quiet else JsonArray() if output == "json" else Table(now=datetime.now(UTC), columns=columns)
    ask(lambda client: _list(client, where, limit, printer))


async def _list(client: AsyncClient, where: JobFilter, limit: int | None, printer: JobPrinter) -> None:
    left = limit
    async with aclosing(client.list(where)) as jobs:
        async for job in jobs:
            printer.add(job)
            left = None if left is None else left - 1
            if left == 0:
                break
    printer.end()


@click.command(epilog=examples("jobworker info", "jobworker info --output json"))
@output_option
@client_options
def info(output: str) -> None:
    """Show what the server is and what it can do."""
    answer = ask(lambda client: client.server_info())

    from jobworker.cli.view import print_info

    print_info(answer, output)
