"""What `start` and `run` say about a job."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import click

from jobworker.cli.exits import USAGE, CliError
from jobworker.cli.limit_options import LimitOptions, limit_options, limits_from
from jobworker.cli.option_names import with_options
from jobworker.cli.params import Assignment, Duration, Size, Utf8, one_value_a_key

if TYPE_CHECKING:
    from jobworker.core.spec import JobSpec

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


class SpecOptions(LimitOptions):
    """The values of the options."""

    cwd: str
    env: tuple[tuple[str, str], ...]
    name: str | None
    label: tuple[tuple[str, str], ...]
    timeout: timedelta | None
    children: str
    output_streams: str
    output_limit: int | None
    output_policy: str | None


_OPTIONS = (
    click.option("--cwd", metavar="DIR", default="/", show_default=True, help="Working directory on the server."),
    click.option(
        "--env",
        metavar="NAME=VALUE",
        type=Assignment("NAME=VALUE", "TZ=UTC"),
        multiple=True,
        help="Variable of the environment; repeatable.",
    ),
    click.option("--name", metavar="TEXT", help="A name for people."),
    click.option(
        "--label",
        metavar="KEY=VALUE",
        type=Assignment(),
        multiple=True,
        callback=one_value_a_key,
        help="Label to find it by; repeatable.",
    ),
    click.option(
        "--timeout",
        metavar="DURATION",
        type=Duration(),
        help="End the job after this time, such as 1h30m or 90 (seconds).",
    ),
    click.option(
        "--children",
        type=click.Choice(["kill", "wait"]),
        default="kill",
        show_default=True,
        help="What to do when the command ends and processes that it started live on.",
    ),
    click.option(
        "--output-streams",
        type=click.Choice(["combined", "split"]),
        default="combined",
        show_default=True,
        help="Keep stdout and stderr as one, in the exact order of writing, or told apart, in that of arrival.",
    ),
    click.option(
        "--output-limit",
        type=Size(),
        metavar="SIZE",
        help="How much output is kept, such as 100M, and at least 64KiB; else as configured.",
    ),
    click.option(
        "--output-policy",
        type=click.Choice(["stop", "drop", "keep-last"]),
        help="What to do at the limit: stop the job, drop the rest, or make room by the oldest; else as configured.",
    ),
)

request_id_option = click.option(
    "--request-id",
    metavar="UUID",
    type=Utf8(),
    help="The same id starts the same job only once; new for each start by default.",
)


def spec_options(command: Decorated) -> Decorated:
    """Give a command all options of `SpecOptions`."""
    command = limit_options()(command)
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def job_spec(argv: Sequence[str], options: SpecOptions) -> JobSpec:
    """The spec that they say. Raises `CliError`."""
    from jobworker.core.errors import InvalidArgumentError
    from jobworker.core.output import OutputLimit, OutputMode, OverflowPolicy
    from jobworker.core.spec import ChildPolicy, JobSpec

    policy = options["output_policy"]
    if not argv:
        raise click.UsageError("give the command to run, such as -- ls -l", click.get_current_context())
    try:
        return JobSpec(
            argv=tuple(argv),
            env=dict(options["env"]),
            cwd=options["cwd"],
            name=options["name"],
            labels=dict(options["label"]),
            time_limit=options["timeout"],
            limits=limits_from(options),
            child_policy=ChildPolicy(options["children"].upper()),
            output=OutputMode(options["output_streams"].upper()),
            output_limit=OutputLimit(
                size=options["output_limit"],
                policy=None if policy is None else OverflowPolicy(policy.upper().replace("-", "_")),
            ),
        )
    except InvalidArgumentError as error:
        raise CliError(with_options(error), USAGE) from None
