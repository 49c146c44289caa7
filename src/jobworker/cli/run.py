"""`jobworker run`: run a command there as if it ran here."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import TYPE_CHECKING, Unpack

import click

from jobworker.cli import text
from jobworker.cli.exits import INTERRUPTED, JOB_CODES, OUTPUT_CLOSED, UNASKED, CliError
from jobworker.cli.limit_options import SIZES
from jobworker.cli.options import JobExitCommand, client_options, examples, output_option, reconnect_option
from jobworker.cli.session import ask
from jobworker.cli.spec_options import SpecOptions, job_spec, request_id_option, spec_options
from jobworker.cli.start import not_known, start_and_print, start_once

if TYPE_CHECKING:
    from jobworker.client import AsyncClient, OutputStream
    from jobworker.core.job import Job
    from jobworker.core.spec import JobSpec


@click.command(
    cls=JobExitCommand,
    context_settings={"allow_interspersed_args": False},  # what follows the command's name belongs to the command
    epilog=f"{JOB_CODES}\n\n{SIZES}\n\n"
    + examples(
        "jobworker run -- uname -a",
        "jobworker run -- sh -c 'make 2>&1' | tee build.log",
        "jobworker run --cpus 2 --memory 4G -- make -j8",
        "jobworker run --detach --name build -- make",
    ),
)
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="[--] COMMAND [ARGS]...")
@spec_options
@request_id_option
@click.option("--detach", is_flag=True, help="Only start it and print its id, as `jobworker start` does.")
@output_option
@reconnect_option
@client_options
def run(
    command: tuple[str, ...],
    request_id: str | None,
    detach: bool,  # noqa: FBT001 -- click gives it by name
    output: str,
    reconnect_timeout: timedelta,
    **options: Unpack[SpecOptions],
) -> int:
    """Run a command on the server: its output here, live, and its exit code as ours.

    Both of its streams come to stdout, in the order of writing; with --output-streams split, its stderr to stderr.
    A lost connection is mended at the very byte. Ctrl-C sends SIGINT to the job, as if it ran here; a second one stops
    it (SIGTERM, and a kill after 10 s); a third one leaves. If you are cut off, the job runs on.
    """
    spec = job_spec(command, options)
    if detach:
        start_and_print(spec, request_id, output)
        return 0
    if output == "json":
        raise click.UsageError(
            "stdout is the job's own: --output json goes with --detach, or with `jobworker wait` afterwards",
            click.get_current_context(),
        )
    request = request_id or str(uuid.uuid4())
    return finish(ask(lambda client: _run(client, spec, request), reconnect=reconnect_timeout))


def finish(job: Job, *, named: bool = False) -> int:
    """Say what the exit code does not, and of which job if it is to be `named`, and give the exit code."""
    from jobworker.cli.view import explanation
    from jobworker.client import exit_code

    explained = explanation(job)
    if explained:
        text.say(f"job {job.id}: {explained}" if named else explained)
    return exit_code(job)


async def _run(client: AsyncClient, spec: JobSpec, request_id: str) -> Job:
    import asyncio

    from jobworker.cli.interrupts import Interrupts
    from jobworker.cli.job_output import JobOutput
    from jobworker.core.errors import ServerUnavailableError

    output = JobOutput()
    job_id: str | None = None
    stream: OutputStream | None = None
    interrupts = Interrupts(client)
    try:
        async with interrupts.answered():
            job_id = (await start_once(client, spec, request_id)).id
            interrupts.started(job_id)
            stream = client.stream(job_id)
            return await output.copy(stream)
    except ServerUnavailableError as error:
        if stream is None:
            raise
        come_back = f"`jobworker stream {job_id} --offset {stream.offset}` carries on"
        raise CliError(f"{error}; job {job_id} goes on: {come_back}", UNASKED) from None
    except BrokenPipeError:
        raise CliError(f"nobody reads the output any more; job {job_id} goes on", OUTPUT_CLOSED) from None
    except asyncio.CancelledError:
        if not interrupts.left:
            raise
        raise CliError(_how_to_come_back(job_id, request_id), INTERRUPTED) from None


def _how_to_come_back(job_id: str | None, request_id: str) -> str:
    if job_id is None:
        return f"left, {not_known(request_id)}"
    return f"left job {job_id}; `jobworker wait {job_id}` tells how it ends"
