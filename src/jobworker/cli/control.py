"""`jobworker stop`, `signal`, `pause`, `resume` and `remove`: act on jobs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

import click

from jobworker.cli import text
from jobworker.cli.exits import CliError, code_of
from jobworker.cli.job_ids import ask_about, full_id
from jobworker.cli.options import client_options, examples, job_arguments, output_option
from jobworker.cli.params import Duration, JobId, Signal
from jobworker.cli.session import ask

if TYPE_CHECKING:
    from jobworker.client import AsyncClient
    from jobworker.core.job import Job

_AT_A_TIME = 64  # stops under way, of the 256 that a user may have by default


@click.command(
    epilog=examples(
        "jobworker stop ID",
        "jobworker stop ID1 ID2 --grace 1m --signal INT",
        "jobworker stop ID --grace 0    (kill it at once)",
        "jobworker stop -j ID    (older form)",
    )
)
@job_arguments
@click.option(
    "--grace", type=Duration(), default="10s", show_default=True, help="How long it may take before it is killed."
)
@click.option(
    "--signal", "number", type=Signal(), default="TERM", show_default=True, metavar="SIGNAL", help="What to begin with."
)
@output_option
@client_options
def stop(job_ids: Sequence[str], grace: timedelta, number: int, output: str) -> None:
    """Stop jobs, each with all of its processes.

    Returns when they have ended. Stopping a job that was stopped already does nothing; one that has ended by itself is
    an error, which does not keep the others. The stop goes on if you leave.
    """

    async def stop_it(client: AsyncClient, job_id: str) -> None:
        _report(await client.stop(job_id, grace=grace, signal=number), output, "job {id} is stopped")

    _for_each(job_ids, stop_it)


@click.command(epilog=examples("jobworker signal ID HUP", "jobworker signal ID SIGUSR1", "jobworker signal ID 9"))
@click.argument("job_id", metavar="ID", type=JobId())
@click.argument("number", metavar="SIGNAL", type=Signal())
@client_options
def signal(job_id: str, number: int) -> None:
    """Send a signal to a job's processes.

    To the process group of its first process, as a terminal would.
    """

    async def signal_it(client: AsyncClient, found: str) -> None:
        from jobworker.core.job import signal_name

        await client.signal(found, number)
        text.say(f"{signal_name(number)} was sent to job {found}")

    ask_about(job_id, signal_it)


@click.command(epilog=examples("jobworker pause ID", "jobworker pause ID1 ID2"))
@job_arguments
@output_option
@client_options
def pause(job_ids: Sequence[str], output: str) -> None:
    """Have jobs stand still until they are resumed.

    All of their processes, and their time limits with them. A paused job can be stopped.
    """

    async def pause_it(client: AsyncClient, job_id: str) -> None:
        _report(await client.pause(job_id), output, "job {id} is paused; `jobworker resume {id}` lets it go on")

    _for_each(job_ids, pause_it)


@click.command(epilog=examples("jobworker resume ID", "jobworker resume ID1 ID2"))
@job_arguments
@output_option
@client_options
def resume(job_ids: Sequence[str], output: str) -> None:
    """Let paused jobs go on."""

    async def resume_it(client: AsyncClient, job_id: str) -> None:
        _report(await client.resume(job_id), output, "job {id} goes on")

    _for_each(job_ids, resume_it)


@click.command(epilog=examples("jobworker remove ID", "jobworker remove ID1 ID2 ID3"))
@job_arguments
@client_options
def remove(job_ids: Sequence[str]) -> None:
    """Forget ended jobs and delete their output.

    One that cannot be removed does not keep the others; the exit code tells of it.
    """

    async def remove_it(client: AsyncClient, job_id: str) -> None:
        await client.remove(job_id)
        text.say(f"job {job_id} is removed")

    _for_each(job_ids, remove_it)


def _for_each(job_ids: Sequence[str], act: Callable[[AsyncClient, str], Awaitable[None]]) -> None:
    """Do something to these jobs at the same time. One that refuses keeps no other; raises `CliError` then."""
    problems = ask(lambda client: _problems(client, job_ids, act))
    for problem in problems[:-1]:
        text.say(str(problem))
    if problems:
        raise problems[-1]


async def _problems(
    client: AsyncClient, job_ids: Sequence[str], act: Callable[[AsyncClient, str], Awaitable[None]]
) -> list[CliError]:
    import asyncio

    from jobworker.cli.option_names import with_options
    from jobworker.core.errors import JobworkerError, ServerUnavailableError

    at_a_time = asyncio.Semaphore(_AT_A_TIME)

    async def act_on(given: str) -> CliError | None:
        async with at_a_time:
            try:
                await act(client, await full_id(client, given))
            except ServerUnavailableError:  # which all of them would say
                raise
            except JobworkerError as error:
                return CliError(with_options(error), code_of(error))
            except CliError as error:
                return error
        return None

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(act_on(given)) for given in job_ids]
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [problem for task in tasks if (problem := task.result())]


def _report(job: Job, output: str, done: str) -> None:
    """Print the job for programs, or tell people on stderr what was done."""
    if output == "json":
        from jobworker.cli.view import print_job

        print_job(job, output)
    else:
        text.say(done.format(id=job.id))
