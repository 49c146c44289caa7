"""`jobworker stop`, `signal`, `pause`, `resume` and `remove`: act on jobs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

import click

from jobworker.cli import text
from jobworker.cli.exits import CliError, code_of
from jobworker.cli.job_ids import ask_about, full_id
from jobworker.cli.options import client_options, examples, job_arguments, job_arguments_or_label, output_option
from jobworker.cli.params import Duration, JobId, Signal
from jobworker.cli.session import ask

if TYPE_CHECKING:
    from jobworker.client import AsyncClient
    from jobworker.core.job import Job
    from jobworker.core.query import JobFilter

T = TypeVar("T")

_AT_A_TIME = 64  # calls under way, of the 256 that a user may have by default


@click.command(
    epilog=examples(
        "jobworker stop ID",
        "jobworker stop ID1 ID2 --grace 1m --signal INT",
        "jobworker stop ID --grace 0    (kill it at once)",
        "jobworker stop --label build=42",
        "jobworker stop -j ID    (older form)",
    )
)
@job_arguments_or_label("the running jobs")
@click.option(
    "--grace", type=Duration(), default="10s", show_default=True, help="How long it may take before it is killed."
)
@click.option(
    "--signal", "number", type=Signal(), default="TERM", show_default=True, metavar="SIGNAL", help="What to begin with."
)
@output_option
@client_options
def stop(job_ids: Sequence[str], labels: Sequence[tuple[str, str]], grace: timedelta, number: int, output: str) -> None:
    """Stop jobs, each with all of its processes.

    Returns when they have ended. Stopping a job that was stopped already does nothing; one that has ended by itself is
    an error, which does not keep the others. The stop goes on if you leave. An admin's --label is about
    everybody's jobs.
    """

    async def stop_it(client: AsyncClient, job_id: str) -> None:
        _report(await client.stop(job_id, grace=grace, signal=number), output, "job {id} is stopped")

    for_each(_which(job_ids, labels, ended=False), stop_it)


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

    for_each(job_ids, pause_it)


@click.command(epilog=examples("jobworker resume ID", "jobworker resume ID1 ID2"))
@job_arguments
@output_option
@client_options
def resume(job_ids: Sequence[str], output: str) -> None:
    """Let paused jobs go on."""

    async def resume_it(client: AsyncClient, job_id: str) -> None:
        _report(await client.resume(job_id), output, "job {id} goes on")

    for_each(job_ids, resume_it)


@click.command(
    epilog=examples("jobworker remove ID", "jobworker remove ID1 ID2 ID3", "jobworker remove --label build=42")
)
@job_arguments_or_label("the ended jobs")
@client_options
def remove(job_ids: Sequence[str], labels: Sequence[tuple[str, str]]) -> None:
    """Forget ended jobs and delete their output.

    One that cannot be removed does not keep the others; the exit code tells of it. An admin's --label is about
    everybody's jobs.
    """

    async def remove_it(client: AsyncClient, job_id: str) -> None:
        await client.remove(job_id)
        text.say(f"job {job_id} is removed")

    for_each(_which(job_ids, labels, ended=True), remove_it)


def for_each(
    which: Sequence[str] | JobFilter,
    act: Callable[[AsyncClient, str], Awaitable[T]],
    *,
    reconnect: timedelta | None = None,
) -> list[T]:
    """Do something to these jobs at the same time, and give what comes of it, in their order.

    One that refuses keeps no other; raises `CliError` then. `reconnect` is as for `ask`.
    """
    results = ask(lambda client: _results(client, which, act), reconnect=reconnect)
    problems = [result for result in results if isinstance(result, CliError)]
    for problem in problems[:-1]:
        text.say(str(problem))
    if problems:
        raise problems[-1]
    return [result for result in results if not isinstance(result, CliError)]


async def _results(
    client: AsyncClient, which: Sequence[str] | JobFilter, act: Callable[[AsyncClient, str], Awaitable[T]]
) -> list[T | CliError]:
    import asyncio

    from jobworker.cli.option_names import with_options
    from jobworker.core.errors import JobworkerError, ServerUnavailableError
    from jobworker.core.query import JobFilter

    at_a_time = asyncio.Semaphore(_AT_A_TIME)

    async def act_on(given: str) -> T | CliError:
        async with at_a_time:
            try:
                return await act(client, await full_id(client, given))
            except ServerUnavailableError:  # which all of them would say
                raise
            except JobworkerError as error:
                return CliError(with_options(error), code_of(error))
            except CliError as error:
                return error

    if isinstance(which, JobFilter):
        which = [job.id async for job in client.list(which)]
        if not which:
            text.say("there are no such jobs")
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(act_on(given)) for given in which]
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [task.result() for task in tasks]


def _which(job_ids: Sequence[str], labels: Sequence[tuple[str, str]], *, ended: bool) -> Sequence[str] | JobFilter:
    """The ids, or without any those with the labels that have ended, or run."""
    from jobworker.core.query import JobFilter
    from jobworker.core.state import JobState

    if job_ids:
        return job_ids
    running = frozenset({JobState.RUNNING})
    return JobFilter(states=frozenset(JobState) - running if ended else running, labels=dict(labels))


def _report(job: Job, output: str, done: str) -> None:
    """Print the job for programs, or tell people on stderr what was done."""
    if output == "json":
        from jobworker.cli.view import print_job

        print_job(job, output)
    else:
        text.say(done.format(id=job.id))
