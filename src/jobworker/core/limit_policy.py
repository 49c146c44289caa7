"""Which limits a job gets: those that it asks for, within what it may have."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, fields, replace
from typing import Any

from jobworker.core.errors import InvalidArgumentError, LimitAboveMaximumError
from jobworker.core.limits import LIMITS, NO_LIMITS, IoLimit, Limits, cpu_ranges

IO_RATES = tuple(one.name for one in fields(IoLimit) if one.name != "device")
KERNEL_WEIGHT = 100  # what the kernel gives where no weight is written


@dataclass(frozen=True, kw_only=True, slots=True)
class LimitPolicy:
    """The limits of jobs that ask for none, and the most that a job may have; one that is not set bounds nothing.

    Not to ask does not evade a maximum: it holds where there is no default. A job whose memory is limited gets no swap,
    and runs out of memory as a whole, unless something else is said. Raises `InvalidArgumentError` for a default above
    its maximum.
    """

    default: Limits = NO_LIMITS
    maximum: Limits = NO_LIMITS

    def __post_init__(self) -> None:
        if self.maximum.oom_group is not None:
            raise InvalidArgumentError("limits.oom_group", "has no maximum")
        self._check(self.default)

    def requested(self) -> tuple[str, ...]:
        """Names of the limits that jobs get without asking, in the order of their declaration."""
        names = {*self.default.requested(), *self.maximum.requested()}
        return tuple(name for name in LIMITS if name in names)

    def effective(self, asked: Limits, *, enforceable: Collection[str] = LIMITS) -> Limits:
        """The limits of a job that asks for these; a default or maximum that is not `enforceable` is left out.

        Raises `LimitAboveMaximumError`.
        """
        self._check(asked)
        return self._completed(asked, enforceable)

    def updated(
        self, present: Limits, asked: Limits, names: Iterable[str], *, enforceable: Collection[str] = LIMITS
    ) -> Limits:
        """The present limits with those of `names` as asked for, or as for a new job where they are not set.

        Raises `LimitAboveMaximumError`.
        """
        names = set(names)
        self._check(_only(asked, names))
        asked = replace(present, **{name: getattr(asked, name) for name in names})
        if "memory" in names:
            names |= {name for name in ("swap", "oom_group") if getattr(present, name) is None}
        chosen = self._completed(asked, names & set(enforceable))
        return replace(present, **{name: getattr(chosen, name) for name in names})

    def _completed(self, asked: Limits, names: Collection[str]) -> Limits:
        """Limits with those of `names` that are not set as the policy has them."""
        default, maximum = _only(self.default, names), _only(self.maximum, names)
        values: dict[str, Any] = {
            name: _first(getattr(asked, name), getattr(default, name)) for name in LIMITS if name != "io"
        }
        values["memory"] = _first(values["memory"], maximum.memory)
        if values["memory"] is not None:
            values["swap"] = _first(values["swap"], 0 if "swap" in names else None)
            values["oom_group"] = _first(values["oom_group"], True if "oom_group" in names else None)
        for name in ("cpu_weight", "io_weight"):  # without one a job has the kernel's, which may be below the maximum
            bound = getattr(maximum, name)
            values[name] = _first(values[name], None if bound is None else min(bound, KERNEL_WEIGHT))
        values = {name: _first(value, getattr(maximum, name)) for name, value in values.items()}
        if asked.memory_high is None and None not in (values["memory_high"], values["memory"]):
            values["memory_high"] = min(values["memory_high"], values["memory"])
        return Limits(io=_io(asked.io, default.io, maximum.io), **values)

    def _check(self, asked: Limits) -> None:
        maximum = self.maximum
        for name in ("cpus", "cpu_weight", "memory", "memory_high", "swap", "pids", "io_weight"):
            _check_number(name, getattr(asked, name), getattr(maximum, name))
        if asked.cpuset is not None and maximum.cpuset is not None and not _within(asked.cpuset, maximum.cpuset):
            raise LimitAboveMaximumError("cpuset", maximum.cpuset)
        for limit in asked.io:
            bound = _of_device(maximum.io, limit.device)
            for rate in IO_RATES:
                _check_number(f"io.{rate}", getattr(limit, rate), getattr(bound, rate))


def _first(*values: Any) -> Any:  # noqa: ANN401 - of a limit's type
    """The first value that is set."""
    return next((value for value in values if value is not None), None)


def _only(limits: Limits, names: Collection[str]) -> Limits:
    return Limits(**{name: getattr(limits, name) for name in names})


def _check_number(name: str, asked: float | None, maximum: float | None) -> None:
    if asked is not None and maximum is not None and asked > maximum:
        raise LimitAboveMaximumError(name, str(maximum))


def _io(asked: Iterable[IoLimit], default: Iterable[IoLimit], maximum: Iterable[IoLimit]) -> tuple[IoLimit, ...]:
    """The limits of every disk that one of the three names, rate by rate."""
    devices = dict.fromkeys(limit.device for limits in (asked, default, maximum) for limit in limits)
    merged: list[IoLimit] = []
    for device in devices:
        choices = (_of(asked, device), _of(default, device), _of_device(maximum, device))
        rates = {rate: _first(*(getattr(choice, rate) for choice in choices)) for rate in IO_RATES}
        if any(rate is not None for rate in rates.values()):
            merged.append(IoLimit(device=device, **rates))
    return tuple(merged)


def _of(limits: Iterable[IoLimit], device: str | None) -> IoLimit:
    return next((limit for limit in limits if limit.device == device), IoLimit())


def _of_device(maximum: Iterable[IoLimit], device: str | None) -> IoLimit:
    """The maximum of a device: its own, or else that of the disk under the working directory, whichever it is."""
    return next((limit for limit in maximum if limit.device == device), _of(maximum, None))


def _within(asked: str, allowed: str) -> bool:
    """Whether a list of CPUs has only such of another."""
    cpus = {cpu for cpus in cpu_ranges(allowed) for cpu in cpus}
    return all(cpu in cpus for cpus_asked in cpu_ranges(asked) for cpu in cpus_asked)


NO_POLICY = LimitPolicy()  # no defaults, and no maximum
