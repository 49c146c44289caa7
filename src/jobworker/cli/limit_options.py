"""What `start`, `run` and `update` say about limits."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar

import click

from jobworker.cli.exits import USAGE, CliError
from jobworker.cli.option_names import flag, with_options
from jobworker.core.limit_options import OPTIONS, LimitOption, limits_of
from jobworker.core.limits import IoLimit, Limits

if TYPE_CHECKING:
    from jobworker.client import AsyncClient, ServerInfo

T = TypeVar("T")
Decorated = TypeVar("Decorated", bound=Callable[..., Any])

SIZES = """\b
Sizes:
  2G is 2,000,000,000 bytes and 2GiB 2,147,483,648: k, M, G, T count in thousands, Ki, Mi, Gi, Ti in 1024s"""

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
    if not option.metavar:
        both = f"{flag(name)}/--no-{flag(name).removeprefix('--')}"
        return click.option(both, name, default=None, help=option.purpose)
    kind = Limit(name, for_update=for_update)
    return click.option(flag(name), name, type=kind, metavar=option.metavar, help=option.purpose)


def limits_from(options: Mapping[str, Any]) -> Limits:
    """The limits that some of them say. Raises `CliError`."""
    from jobworker.core.errors import InvalidArgumentError

    try:
        return limits_of({name: value for name, value in options.items() if name in OPTIONS})
    except InvalidArgumentError as error:
        raise CliError(with_options(error), USAGE) from None
    except ValueError:  # a disk without a rate
        rates = ", ".join(flag(name) for name, option in OPTIONS.items() if option.rate not in (None, "device"))
        raise CliError(f"--io-device says which disk {rates} are for; give one of them", USAGE) from None


async def with_limits(client: AsyncClient, limits: Limits, answer: Awaitable[T]) -> T:
    """The answer to a request for these limits. If it is refused for them, all that cannot be had are named.

    Raises `CliError` for that.
    """
    from jobworker.core.errors import JobworkerError, LimitAboveMaximumError, LimitNotEnforceableError

    try:
        return await answer
    except (LimitNotEnforceableError, LimitAboveMaximumError) as error:
        try:
            refused = _refused(limits, await client.server_info())
        except JobworkerError:
            refused = ""
        raise CliError(refused or with_options(error)) from None


def _refused(limits: Limits, info: ServerInfo) -> str:
    """Which of the limits cannot be had, and why; none where the kernel alone knows."""
    from jobworker.core.errors import LimitAboveMaximumError
    from jobworker.core.limit_policy import LimitPolicy

    policy = LimitPolicy(maximum=info.limit_maximums)
    missing: dict[str, list[str]] = {}  # options by why they cannot be had
    above: dict[str, list[str]] = {}
    for name, limit in _one_by_one(limits):
        if reason := info.missing_limits.get(OPTIONS[name].limit):
            missing.setdefault(reason, []).append(flag(name))
            continue
        try:
            policy.effective(limit)
        except LimitAboveMaximumError as error:
            above.setdefault(error.problem, []).append(flag(name))
    told = [f"{', '.join(names)}: {problem}" for problem, names in above.items()]
    if missing:
        which = ", ".join(f"{', '.join(names)} ({reason})" for reason, names in missing.items())
        it = "it" if sum(map(len, missing.values())) == 1 else "them"
        told.append(f"this server cannot enforce {which}: go without {it}; `jobworker info` shows what it can")
    return "; ".join(told)


def _one_by_one(limits: Limits) -> Iterator[tuple[str, Limits]]:
    """Each option that says something of the limits, and what it says."""
    for name, option in OPTIONS.items():
        if option.rate is None and (value := getattr(limits, option.limit)) is not None:
            yield name, Limits(**{option.limit: value})
        elif option.rate not in (None, "device"):
            for disk in limits.io:
                if (rate := getattr(disk, option.rate)) is not None:
                    yield name, Limits(io=(IoLimit(device=disk.device, **{option.rate: rate}),))
