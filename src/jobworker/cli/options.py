"""Options and arguments that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import click

from jobworker.cli.exits import INTERRUPTED, NOT_EXECUTABLE, NOT_FOUND, OUTPUT_CLOSED, UNASKED, CliError
from jobworker.cli.params import Assignment, Duration, JobId, one_value_a_key

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

_KEPT = frozenset({NOT_EXECUTABLE, NOT_FOUND, INTERRUPTED, OUTPUT_CLOSED})  # mean the same of a job and of us

_FLAGS = "jobworker.cli.flags"  # where a context keeps what was given of the client options

_CLIENT_OPTIONS = (
    click.Option(["--server"], metavar="HOST:PORT", help="The server to ask."),
    click.Option(["--ca"], metavar="FILE", help="Certificate of the CA that issued the server's."),
    click.Option(["--cert"], metavar="FILE", help="Your certificate."),
    click.Option(["--key"], metavar="FILE", help="The key of your certificate."),
    click.Option(["--profile"], metavar="NAME", help="Take what is not given from this profile."),
)


def _remember(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    if value is not None:
        ctx.meta.setdefault(_FLAGS, {})[param.name] = value  # shared by a command and its group; the command comes last


def _client_options(options: Sequence[click.Option], *, hidden: bool = False) -> Callable[[Decorated], Decorated]:
    def decorate(command: Decorated) -> Decorated:
        for option in reversed(options):
            command = click.option(
                *option.opts,
                metavar=option.metavar,
                help=option.help,
                hidden=hidden,
                expose_value=False,
                callback=_remember,
            )(command)
        return command

    return decorate


global_client_options = _client_options(_CLIENT_OPTIONS)
client_options = _client_options(_CLIENT_OPTIONS, hidden=True)  # the group's help has them
profile_fields = _client_options(_CLIENT_OPTIONS[:-1])  # what a profile holds: all but the name of a profile


def label_option(which: str, *, is_eager: bool = False) -> Callable[[Decorated], Decorated]:
    """The option `labels`; `which` are the jobs that it is about, as the help is to say."""
    return click.option(
        "--label",
        "labels",
        type=Assignment(),
        metavar="KEY=VALUE",
        multiple=True,
        is_eager=is_eager,
        callback=one_value_a_key,
        help=f"{which} with this label; repeatable.",
    )


def filter_options(which: str) -> Callable[[Decorated], Decorated]:
    """The options `states` and `labels`; `which` are the jobs that they are about, as the help is to say."""
    state = click.option(
        "--state",
        "states",
        type=click.Choice(["RUNNING", "STOPPED", "FINISHED", "LOST"], case_sensitive=False),
        multiple=True,
        help=f"{which} in this state; repeatable.",
    )
    label = label_option(which)
    return lambda command: state(label(command))


def client_flags(ctx: click.Context) -> Mapping[str, str]:
    """The client options that were given, before or after the command."""
    return ctx.meta.get(_FLAGS, {})


output_option = click.option(
    "--output",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="How to print it: for people, or for programs.",
)

reconnect_option = click.option(
    "--reconnect-timeout",
    type=Duration(),
    default="5m",
    show_default=True,
    envvar="JOBWORKER_RECONNECT_TIMEOUT",
    help="How long the server may be away before this gives up; 0 never reconnects.",
)


def job_argument(command: Decorated) -> Decorated:
    """The id of a job, as an argument or in the older form, `-j ID`; the command gets it as `job_id`."""

    def choose(ctx: click.Context, _param: click.Parameter, value: str | None) -> str:
        return _with_older(ctx, () if value is None else (value,))[0]

    argument = click.argument("job_id", metavar="ID", type=JobId(), required=False, callback=choose)
    return _older_job_id(argument(command))


def job_arguments(command: Decorated) -> Decorated:
    """As `job_argument`, of one job or several; the command gets them as `job_ids`, each once."""

    def choose(ctx: click.Context, _param: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
        return _with_older(ctx, tuple(dict.fromkeys(values)))

    argument = click.argument("job_ids", metavar="ID...", type=JobId(), nargs=-1, callback=choose)
    return _older_job_id(argument(command))


# eager, so that it is known when the argument is looked at
_older_job_id = click.option("-j", "older_job_id", type=JobId(), metavar="ID", is_eager=True, hidden=True)


def job_arguments_or_label(which: str) -> Callable[[Decorated], Decorated]:
    """As `job_arguments`, or the option `labels` instead, for `which` jobs; one of them is empty."""
    label = label_option(f"Instead of ids: {which}", is_eager=True)  # known when the argument is looked at
    return lambda command: label(job_arguments(command))


def _with_older(ctx: click.Context, given: tuple[str, ...]) -> tuple[str, ...]:
    older = ctx.params.pop("older_job_id", None)
    if given and older:
        raise click.UsageError("give the id of one job with -j, or as an argument", ctx)
    ids = given or ((older,) if older else ())
    if ids and ctx.params.get("labels"):
        raise click.UsageError("give ids, or --label, not both", ctx)
    if not (ids or ctx.params.get("labels")):
        label = ", or --label" if "labels" in ctx.params else ""
        raise click.UsageError(f"give the id of a job{label}; `jobworker list` shows them", ctx)
    return ids


class JobExitCommand(click.Command):
    """A command that exits with its job's code, so that all of its own failures have codes from 124 on.

    That includes a wrong command line, for which `main` asks the command by its class.
    """

    def invoke(self, ctx: click.Context) -> object:
        """Run it, with the codes of its errors kept apart from those of jobs."""
        try:
            return super().invoke(ctx)
        except CliError as error:
            ours = error.code if error.code in _KEPT else UNASKED
            raise CliError(str(error), ours) from None
        except KeyboardInterrupt:
            raise CliError("left; the job is not touched by that", INTERRUPTED) from None


def examples(*lines: str) -> str:
    """The end of a command's help."""
    return "\n".join(("\b", "Examples:", *(f"  {line}" for line in lines)))  # \b: click leaves these lines alone
