"""`jobworker stop`, `signal`, `pause`, `resume` and `remove`: act on a job."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import click

from jobworker.cli import text
from jobworker.cli.exits import CliError, code_of
from jobworker.cli.options import client_options, examples, job_argument, job_ids, output_option
from jobworker.cli.params import Duration, Signal, Utf8
from jobworker.cli.session import ask

if TYPE_CHECKING:
    from jobworker.client import AsyncClient
    from jobworker.core.job import Job


@click.command(
    epilog=examples(
        "jobworker stop ID",
        "jobworker stop ID --grace 1m --signal INT",
        "jobworker stop ID --grace 0    (kill it at once)",
        "jobworker stop -j ID    (older form)",
    )
)
@job_argument
@click.option(
    "--grace", type=Duration(), default="10s", show_default=True, help="How long it may take before it is killed."
)
@click.option(
    "--signal", "number", type=Signal(), default="TERM", show_default=True, metavar="SIGNAL", help="What to begin with."
)
@output_option
@client_options
def stop(job_id: str, grace: timedelta, number: int, output: str) -> None:
    """Stop a job and all of its processes.

    Returns when it has ended. Stopping a job that was stopped already does nothing; one that has ended by itself is an
    error. The stop goes on if you leave.
    """
    job = ask(lambda client: client.stop(job_id, grace=grace, signal=number))
    _report(job, output, f"job {job.id} is stopped")


@click.command(epilog=examples("jobworker signal ID HUP", "jobworker signal ID SIGUSR1", "jobworker signal ID 9"))
@click.argument("job_id", metavar="ID", type=Utf8(), shell_complete=job_ids)
@click.argument("number", metavar="SIGNAL", type=Signal())
@client_options
def signal(job_id: str, number: int) -> None:
    """Send a signal to a job's processes.

    To the process group of its first process, as a terminal would.
    """
    ask(lambda client: client.signal(job_id, number))


@click.command(epilog=examples("jobworker pause ID"))
@click.argument("job_id", metavar="ID", type=Utf8(), shell_complete=job_ids)
@output_option
@client_options
def pause(job_id: str, output: str) -> None:
    """Have a job stand still until it is resumed.

    All of its processes, and its time limit with them. A paused job can be stopped.
    """
    job = ask(lambda client: client.pause(job_id))
    _report(job, output, f"job {job.id} is paused; `jobworker resume {job.id}` lets it go on")


@click.command(epilog=examples("jobworker resume ID"))
@click.argument("job_id", metavar="ID", type=Utf8(), shell_complete=job_ids)
@output_option
@client_options
def resume(job_id: str, output: str) -> None:
    """Let a paused job go on."""
    job = ask(lambda client: client.resume(job_id))
    _report(job, output, f"job {job.id} goes on")


@click.command(epilog=examples("jobworker remove ID", "jobworker remove ID1 ID2 ID3"))
@click.argument("job_ids", metavar="ID...", type=Utf8(), nargs=-1, required=True, shell_complete=job_ids)
@client_options
def remove(job_ids: tuple[str, ...]) -> None:
    """Forget ended jobs and delete their output.

    One that cannot be removed does not keep the others; the exit code tells of it.
    """

    async def remove_all(client: AsyncClient) -> list[tuple[str, int]]:
        from jobworker.core.errors import JobworkerError, ServerUnavailableError

        failures: list[tuple[str, int]] = []
        for job_id in job_ids:
            try:
                await client.remove(job_id)
            except ServerUnavailableError:
                raise
            except JobworkerError as error:
                failures.append((str(error), code_of(error)))
        return failures

    failures = ask(remove_all)
    for problem, _code in failures[:-1]:
        text.say(problem)
    if failures:
        raise CliError(*failures[-1])


def _report(job: Job, output: str, done: str) -> None:
    """Print the job for programs, or tell people on stderr what was done."""
    if output == "json":
        from jobworker.cli.view import print_job

        print_job(job, output)
    else:
        text.say(done)
