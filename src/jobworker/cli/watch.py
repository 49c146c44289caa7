"""`jobworker stream` and `jobworker wait`: look on. Neither touches the job."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

import click

from jobworker.cli.exits import JOB_CODES
from jobworker.cli.options import (
    JobExitCommand,
    client_options,
    examples,
    job_argument,
    output_option,
    reconnect_option,
)
from jobworker.cli.params import Assignment, Utf8
from jobworker.cli.run import finish
from jobworker.cli.session import ask

if TYPE_CHECKING:
    from jobworker.client import AsyncClient
    from jobworker.core.query import JobFilter


@click.command(
    epilog=examples(
        "jobworker stream ID",
        "jobworker stream ID --offset 1048576 >> rest.log",
        "jobworker stream ID --no-follow | tail -n 20",
        "jobworker stream ID1 ID2",
        "jobworker stream --label build=42 --state RUNNING",
        "jobworker stream -j ID    (older form)",
    )
)
@click.argument("job_ids", metavar="[ID]...", type=Utf8(), nargs=-1)
@click.option("-j", "older_job_id", type=Utf8(), metavar="ID", hidden=True)
@click.option(
    "--label",
    "labels",
    type=Assignment(),
    metavar="KEY=VALUE",
    multiple=True,
    help="Instead of ids: the jobs with this label; repeatable.",
)
@click.option(
    "--state",
    "states",
    type=click.Choice(["RUNNING", "STOPPED", "FINISHED", "LOST"], case_sensitive=False),
    multiple=True,
    help="Instead of ids: the jobs in this state; repeatable.",
)
@click.option(
    "--offset",
    type=click.IntRange(min=0),
    default=0,
    metavar="BYTES",
    help="Where in the output of one job to begin; 0 by default.",
)
@click.option(
    "--follow/--no-follow",
    default=True,
    show_default=True,
    help="Go on until the jobs end, or only to the present end.",
)
@click.option(
    "--prefix/--no-prefix",
    default=None,
    help="Begin each line with the job's name, or the beginning of its id; the default for several jobs. The words are "
    "kubectl's; docker compose says --no-log-prefix.",
)
@reconnect_option
@client_options
def stream(  # noqa: PLR0913, PLR0917 -- one for each option; click gives them by name
    job_ids: tuple[str, ...],
    older_job_id: str | None,
    labels: tuple[tuple[str, str], ...],
    states: tuple[str, ...],
    offset: int,
    follow: bool,  # noqa: FBT001 -- click gives it by name
    prefix: bool | None,  # noqa: FBT001 -- as above
    reconnect_timeout: timedelta,
) -> int:
    """Write the output of jobs to stdout, live.

    Of one job: its raw bytes, and nothing else. Ends when the job has ended and all of its output is written; a lost
    connection is mended at the very byte. Exits with 0 if it is complete, whatever became of the job (`jobworker wait`
    tells that), and with 125 if the server was away for too long.

    Of several: whole lines, each with a prefix; a last line without an end gets one, and a line of more than 64 KiB is
    written in pieces. What there is comes first, the oldest job of --label and --state first; then what the running
    jobs write. Jobs that start later are not followed. A job that cannot be read is told on stderr, the others go on,
    and the exit code is 1.
    """
    which = _which(job_ids, older_job_id, labels, states)
    if not isinstance(which, str) and offset:
        raise click.UsageError("--offset is for one job, not for several", click.get_current_context())

    async def copy(client: AsyncClient) -> int:
        if isinstance(which, str) and not prefix:
            from jobworker.cli.raw_output import RawOutput

            await client.stream(which, offset, follow=follow).copy_to(RawOutput().write)
            return 0
        from jobworker.cli.stream_many import stream_many

        jobs = [which] if isinstance(which, str) else which
        return await stream_many(client, jobs, offset=offset, follow=follow, prefix=prefix is not False)

    return ask(copy, reconnect=reconnect_timeout)


def _which(
    job_ids: tuple[str, ...], older_job_id: str | None, labels: tuple[tuple[str, str], ...], states: tuple[str, ...]
) -> str | Sequence[str] | JobFilter:
    """The id of one job, several ids, or a filter."""
    from jobworker.core.query import JobFilter
    from jobworker.core.state import JobState

    context = click.get_current_context()
    if older_job_id and job_ids:
        raise click.UsageError("give the id of one job with -j, or any number as arguments", context)
    ids = (older_job_id,) if older_job_id else tuple(dict.fromkeys(job_ids))
    selected = bool(labels or states)
    if ids and selected:
        raise click.UsageError("give ids, or --label and --state, not both", context)
    if selected:
        return JobFilter(states=frozenset(map(JobState, states)), labels=dict(labels))
    if not ids:
        raise click.UsageError("give the id of a job, or --label; `jobworker list` shows them", context)
    return ids[0] if len(ids) == 1 else ids


@click.command(
    cls=JobExitCommand,
    epilog=JOB_CODES + "\n\n" + examples("jobworker wait ID", "jobworker wait ID --output json | jq .cause"),
)
@job_argument
@output_option
@reconnect_option
@client_options
def wait(job_id: str, output: str, reconnect_timeout: timedelta) -> int:
    """Wait for a job's end and exit with its code.

    As `jobworker run` does. Leaving does not touch the job.
    """
    job = ask(lambda client: client.wait(job_id), reconnect=reconnect_timeout)
    if output == "json":
        from jobworker.cli.view import print_job

        print_job(job, output)
    return finish(job)
