"""`jobworker stream` and `jobworker wait`: look on. Neither touches the job."""

from __future__ import annotations

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
from jobworker.cli.run import finish
from jobworker.cli.session import ask

if TYPE_CHECKING:
    from jobworker.client import AsyncClient


@click.command(
    epilog=examples(
        "jobworker stream ID",
        "jobworker stream ID --offset 1048576 >> rest.log",
        "jobworker stream ID --no-follow | tail -n 20",
        "jobworker stream -j ID    (older form)",
    )
)
@job_argument
@click.option(
    "--offset",
    type=click.IntRange(min=0),
    default=0,
    metavar="BYTES",
    help="Where in the output to begin; 0 by default.",
)
@click.option(
    "--follow/--no-follow",
    default=True,
    show_default=True,
    help="Go on until the job ends, or only to the present end.",
)
@reconnect_option
@client_options
def stream(job_id: str, offset: int, follow: bool, reconnect_timeout: timedelta) -> None:  # noqa: FBT001 -- click gives it by name
    """Write a job's output to stdout, live.

    Its raw bytes, and nothing else. Ends when the job has ended and all of its output is written; a lost connection is
    mended at the very byte. Exits with 0 if it is complete, whatever became of the job (`jobworker wait` tells that),
    and with 125 if the server was away for too long.
    """

    async def copy(client: AsyncClient) -> None:
        from jobworker.cli.raw_output import RawOutput

        await client.stream(job_id, offset, follow=follow).copy_to(RawOutput().write)

    ask(copy, reconnect=reconnect_timeout)


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
