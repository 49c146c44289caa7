"""`jobworker stream` and `jobworker wait`: look on. Neither touches the job."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Unpack

import click

from jobworker.cli.control import for_each
from jobworker.cli.exits import JOB_CODES
from jobworker.cli.job_ids import full_id
from jobworker.cli.options import (
    JobExitCommand,
    client_options,
    examples,
    filter_options,
    job_arguments,
    output_option,
    reconnect_option,
)
from jobworker.cli.params import JobId
from jobworker.cli.run import finish
from jobworker.cli.selection_options import SelectionOptions, check_selection, selection_from, selection_options
from jobworker.cli.session import ask

if TYPE_CHECKING:
    from jobworker.client import AsyncClient
    from jobworker.core.job import Job
    from jobworker.core.query import JobFilter


@click.command(
    epilog=examples(
        "jobworker stream ID",
        "jobworker stream ID --offset 1048576 >> rest.log",
        "jobworker stream ID --tail 20 --timestamps",
        "jobworker stream ID --since 10m --no-follow",
        "jobworker stream ID1 ID2 --since 10m --timestamps",
        "jobworker stream --label build=42 --state RUNNING",
        "jobworker stream -j ID    (older form)",
    )
)
@click.argument("job_ids", metavar="[ID]...", type=JobId(), nargs=-1)
@click.option("-j", "older_job_id", type=JobId(), metavar="ID", hidden=True)
@filter_options("Instead of ids: the jobs")
@selection_options
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
    follow: bool,  # noqa: FBT001 -- click gives it by name
    prefix: bool | None,  # noqa: FBT001 -- as above
    reconnect_timeout: timedelta,
    **options: Unpack[SelectionOptions],
) -> int:
    """Write the output of jobs to stdout, live.

    Of one job: its raw bytes, and nothing else; what is missing of them is told on stderr. If it was started with
    --output-streams split, its stderr goes to stderr. Ends when the job has ended and all of its output is written; a
    lost connection is mended at the very byte. Exits with 0 if it is complete, whatever became of the job (`jobworker
    wait` tells that), and with 125 if the server was away for too long.

    Of several: whole lines, each with a prefix, and then, with --timestamps, its time; a last line without an end gets
    one, and a line of more than 64 KiB is written in pieces. What there is comes first, the oldest job of --label and
    --state first; then what the running jobs write. Jobs that start later are not followed. A job that cannot be read
    is told on stderr, the others go on, and the exit code is 1.
    """
    which = _which(job_ids, older_job_id, labels, states)
    one_job = isinstance(which, str)
    prefixed = bool(prefix) or not one_job
    check_selection(options, one_job=one_job)
    selection = selection_from(options)

    async def copy(client: AsyncClient) -> int:
        if isinstance(which, str) and not prefixed:
            from jobworker.cli.job_output import JobOutput, check_split

            job_id = await full_id(client, which)
            if options["stdout_only"] or options["stderr_only"]:
                check_split(await client.get(job_id))
            output = client.stream(job_id, options["offset"], follow=follow, **selection)
            await JobOutput(timestamps=options["timestamps"]).copy(output)
            return 0
        from jobworker.cli.stream_many import stream_many

        jobs = [which] if isinstance(which, str) else which
        return await stream_many(
            client, jobs, offset=options["offset"], follow=follow, prefix=prefix is not False, selection=selection
        )

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
    epilog=JOB_CODES
    + "\n\n"
    + examples("jobworker wait ID", "jobworker wait ID1 ID2 ID3", "jobworker wait ID --output json | jq .cause"),
)
@job_arguments
@output_option
@reconnect_option
@client_options
def wait(job_ids: Sequence[str], output: str, reconnect_timeout: timedelta) -> int:
    """Wait for the end of jobs and exit with their code.

    As `jobworker run` does; of several, when all have ended, with the code of the first in their order that is not 0.
    With --output json each is printed when it has ended. Leaving does not touch the jobs.
    """

    async def wait_for(client: AsyncClient, job_id: str) -> Job:
        job = await client.wait(job_id)
        if output == "json":
            from jobworker.cli.view import print_job

            print_job(job, output)
        return job

    jobs = for_each(job_ids, wait_for, reconnect=reconnect_timeout)
    codes = [finish(job, named=len(jobs) > 1) for job in jobs]
    return next((code for code in codes if code), 0)
