"""The program `jobworker`."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from typing import TextIO, cast

import click

from jobworker.cli import text
from jobworker.cli.exits import INTERRUPTED, OUTPUT_CLOSED, REFUSED, UNASKED, CliError
from jobworker.cli.lazy import LazyCommand, LazyGroup
from jobworker.cli.options import JobExitCommand, examples, global_client_options

PROGRAM = "jobworker"


def _at(source: str, summary: str) -> LazyCommand:
    return LazyCommand(source=f"jobworker.cli.{source}", summary=summary)


SECTIONS = {
    "Run": {
        "run": _at("run:run", "Run a command on the server: its output here, live, and its exit code as ours."),
        "start": _at("start:start", "Start a command on the server and print the id of its job."),
    },
    "Watch": {
        "list": _at("look:list_jobs", "List jobs, newest first."),
        "status": _at("look:status", "Show one job: where it is, what it has used, and if it has ended, how."),
        "stream": _at("watch:stream", "Write the output of jobs to stdout, live."),
        "stats": _at("stats:stats", "Show what a job has used: CPU time, memory, I/O, processes."),
        "top": _at("stats:top", "Show all running jobs and what they use, as it changes."),
        "wait": _at("watch:wait", "Wait for the end of jobs and exit with their code."),
    },
    "Act": {
        "stop": _at("control:stop", "Stop jobs, each with all of its processes."),
        "signal": _at("control:signal", "Send a signal to a job's processes."),
        "pause": _at("control:pause", "Have jobs stand still until they are resumed."),
        "resume": _at("control:resume", "Let paused jobs go on."),
        "update": _at("update:update", "Change the limits of a running job."),
        "remove": _at("control:remove", "Forget ended jobs and delete their output."),
    },
    "Set up": {
        "serve": _at("serve:serve", "Run the server, until SIGTERM or Ctrl-C."),
        "doctor": _at("doctor:doctor", "Say whether a server would start here, and what to do about what is wrong."),
        "pki": _at("pki:pki", "Make and look at certificates."),
        "profile": _at("profile:profile", "Name a server and your certificate for it, once."),
        "info": _at("look:info", "Show what the server is and what it can do."),
        "completion": _at(
            "completion:completion", "Print the script that makes a shell complete this program's words."
        ),
    },
}


def _print_version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:  # noqa: FBT001 -- click's own
    if not value or ctx.resilient_parsing:
        return
    from importlib.metadata import version  # here, because it costs as much as all the rest of --help

    click.echo(f"{PROGRAM} {version('jobworker')}")
    ctx.exit()


class _Root(LazyGroup):
    """All commands."""

    def invoke(self, ctx: click.Context) -> object:
        """Run one, with our own code for a reader that went away, which click would take for a failure."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            return OUTPUT_CLOSED


@click.group(
    cls=_Root,
    sections=SECTIONS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=examples(
        "jobworker run -- uname -a                      run it there, see it here",
        "id=$(jobworker start -- make -j8)              start it and leave",
        "jobworker stream $id                           see its output, from the first byte",
        "jobworker stop $id                             end it, with all of its processes",
        "jobworker --profile build list                 ask another server",
    )
    + "\n\n\b\nServer and certificates may be named before or after the command, by JOBWORKER_SERVER, JOBWORKER_CA,"
    "\nJOBWORKER_CERT, JOBWORKER_KEY and JOBWORKER_PROFILE, or by a profile; the first of these wins.",
)
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_print_version,
    help="Show the version and exit.",
)
@global_client_options
def jobworker() -> None:
    """Run any Linux command on a machine you are not sitting at."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program with these arguments, by default the command line's, and give its exit code."""
    if cast("TextIO | None", sys.stdout) is None:  # its number is free, and would be a socket's next
        text.say("standard output is closed; if nobody wants it, send it to /dev/null")
        return UNASKED
    _accept_every_character()
    try:
        result: object = jobworker.main(arguments, prog_name=PROGRAM, standalone_mode=False)
        sys.stdout.flush()
    except BrokenPipeError:
        code = OUTPUT_CLOSED
    except CliError as error:
        text.say(str(error))
        code = error.code
    except click.UsageError as error:
        code = _tell_misuse(error)
    except click.ClickException as error:
        text.say(error.format_message())
        code = error.exit_code
    except click.Abort:
        code = INTERRUPTED
    except OSError as error:  # of a full disk under stdout, and the like
        text.say(f"cannot write the output: {error.strerror}")
        code = REFUSED
    else:
        code = result if isinstance(result, int) else 0
    if code == OUTPUT_CLOSED:
        _drop_output()
    return code


def _tell_misuse(error: click.UsageError) -> int:
    if isinstance(error, click.exceptions.NoArgsIsHelpError):  # a group alone: its help is the answer, and not a line
        click.echo(error.format_message(), err=True)
    else:
        text.say(f"{error.format_message().rstrip('.')}{_hint(error)}")
    return UNASKED if error.ctx and isinstance(error.ctx.command, JobExitCommand) else error.exit_code


def _accept_every_character() -> None:
    """Have stdout write what its locale cannot show as escapes, rather than fail."""
    stdout: object = sys.stdout
    if isinstance(stdout, io.TextIOWrapper):
        stdout.reconfigure(errors="backslashreplace")


def _drop_output() -> None:
    """Have what is still buffered go nowhere: the interpreter flushes stdout when it ends, and would complain there."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def _hint(error: click.UsageError) -> str:
    return f" (see `{error.ctx.command_path} --help`)" if error.ctx else ""
