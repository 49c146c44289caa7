"""What `start`, `run` and `update` say about limits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypedDict, TypeVar

import click

from jobworker.cli.exits import USAGE, CliError
from jobworker.core.limit_options import OPTIONS, LimitOption, limits_of
from jobworker.core.limits import Limits

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

DEFAULT = "default"  # the word by which an update gives a limit back to the server


class LimitOptions(TypedDict):
    """The values of the options; `None` where nothing was said."""

    cpus: float | None
    cpu_weight: int | None
    cpuset: str | None
    memory: int | None
    memory_high: int | None
    swap: int | None
    oom_group: bool | None
    pids: int | None
    io_read: int | None
    io_write: int | None
    io_read_ops: int | None
    io_write_ops: int | None
    io_device: str | None
    io_weight: int | None


class Limit(click.ParamType[Any]):
    """The value of one limit, or for an update the word that gives it back."""

    def __init__(self, name: str, *, for_update: bool) -> None:
        self.name = name
        self._for_update = for_update

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ANN401 -- the option decides the type
        """Read it."""
        if self._for_update and value == DEFAULT:
            return value
        try:
            return OPTIONS[self.name].parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def limit_options(*, for_update: bool = False) -> Callable[[Decorated], Decorated]:
    """Give a command all options of `LimitOptions`."""

    def decorate(command: Decorated) -> Decorated:
        for name, option in reversed(list(OPTIONS.items())):
            command = _option(name, option, for_update=for_update)(command)
        return command

    return decorate


def _option(name: str, option: LimitOption, *, for_update: bool) -> Callable[[Decorated], Decorated]:
    flag = "--" + name.replace("_", "-")
    if not option.metavar:
        return click.option(f"{flag}/--no-{flag.removeprefix('--')}", name, default=None, help=option.purpose)
    kind = Limit(name, for_update=for_update)
    return click.option(flag, name, type=kind, metavar=option.metavar, help=option.purpose)


def limits_from(options: Mapping[str, Any]) -> Limits:
    """The limits that some of them say. Raises `CliError`."""
    from jobworker.core.errors import InvalidArgumentError

    try:
        return limits_of({name: value for name, value in options.items() if name in OPTIONS})
    except (InvalidArgumentError, ValueError) as error:
        raise CliError(str(error), USAGE) from None
