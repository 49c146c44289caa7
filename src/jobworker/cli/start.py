"""`jobworker start`: start a job and leave it."""

from __future__ import annotations

import shlex
import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING, Unpack

import click

from jobworker.cli.exits import INTERRUPTED, UNASKED, CliError, code_of
from jobworker.cli.limit_options import SIZES, with_limits
from jobworker.cli.options import client_options, examples, output_option
from jobworker.cli.session import ask
from jobworker.cli.spec_options import SpecOptions, job_spec, request_id_option, spec_options

if TYPE_CHECKING:
    from jobworker.client import AsyncClient
    from jobworker.core.job import Job
    from jobworker.core.spec import JobSpec

OLDER_ARGUMENTS = "-args"


class StartCommand(click.Command):
    """Understands the older form as well: everything after -args is an argument, whatever it looks like."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the options; -args becomes the -- that it means."""
        at = self._position_of_older_arguments(args)
        return super().parse_args(ctx, args if at is None else [*args[:at], "--", *args[at + 1 :]])

    def _position_of_older_arguments(self, args: Sequence[str]) -> int | None:
        """Where -args stands among the options; one in the command itself is the command's."""
        take_value = {
            name for one in self.params if isinstance(one, click.Option) and not one.is_flag for name in one.opts
        }
        words = iter(enumerate(args))
        for position, word in words:
            if word == OLDER_ARGUMENTS:
                return position
            if word == "--" or not word.startswith("-"):
                return None
            if word in take_value:
                next(words, None)
        return None


@click.command(
    cls=StartCommand,
    context_settings={"allow_interspersed_args": False},  # what follows the command's name belongs to the command
    epilog=SIZES
    + "\n\n"
    + examples(
        "jobworker start -- make -j8",
        "jobworker start --name nightly --label team=db --timeout 2h -- /opt/backup.sh --full",
        "jobworker start --cpus 1.5 --memory 2G --pids 200 --io-write 10M -- ./train.py",
        "jobworker start --env TZ=UTC --cwd /srv -- sh -c 'date; ls | wc -l'",
        "jobworker start --output json -- make | jq -r .id",
        "jobworker start -c ls -args -l /tmp    (older form)",
    ),
)
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="[--] COMMAND [ARGS]...")
@spec_options
@request_id_option
@click.option("-c", "older_command", metavar="COMMAND", hidden=True)
@output_option
@client_options
def start(
    command: tuple[str, ...],
    older_command: str | None,
    request_id: str | None,
    output: str,
    **options: Unpack[SpecOptions],
) -> None:
    """Start a command on the server and print the id of its job.

    It is run without a shell, in a small documented environment, and goes on when you leave. The id is all that is
    printed; with --output json it is the job, as `jobworker status` shows it. Exit codes: 126 and 127 for a command
    that cannot be executed or found, as from a shell; 125 if the server could not be asked; 1 if it refused.
    """
    argv = command if older_command is None else (older_command, *command)
    start_and_print(job_spec(argv, options), request_id, output)


def start_and_print(spec: JobSpec, request_id: str | None, output: str) -> None:
    """Start a job and print its id, or for programs the job."""
    request = request_id or str(uuid.uuid4())
    try:
        job = ask(lambda client: start_once(client, spec, request))
    except KeyboardInterrupt:
        raise CliError(f"left, {not_known(request)}", INTERRUPTED) from None
    if output == "json":
        from jobworker.cli.view import print_job

        print_job(job, output)
    else:
        click.echo(job.id)


async def start_once(client: AsyncClient, spec: JobSpec, request_id: str) -> Job:
    """Start a job; if that may have been done although no answer came, the error says how to find out."""
    from jobworker.core.errors import CommandNotStartedError, ServerUnavailableError

    try:
        return await with_limits(client, spec.limits, client.start(spec, request_id=request_id))
    except ServerUnavailableError as error:
        if not client.connected:
            raise
        raise CliError(f"{error}; {not_known(request_id)}", UNASKED) from None
    except CommandNotStartedError as error:
        if not (error.not_found and " " in spec.argv[0]):
            raise
        hint = f"give its words one by one, or a shell the whole: sh -c {shlex.quote(spec.argv[0])}"
        raise CliError(f"{error}; {hint}", code_of(error)) from None


def not_known(request_id: str) -> str:
    """What to do when it is not known whether a job was started."""
    return f"it is not known whether the job was started: with --request-id {request_id} it is started once at most"
