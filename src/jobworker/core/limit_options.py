"""Limits as people write them, under the same names in the configuration file and on the command line."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from jobworker.core.limits import IoLimit, Limits
from jobworker.core.units import format_size, parse_size


@dataclass(frozen=True, kw_only=True, slots=True)
class LimitOption:
    """One of them. `limit` is the field of `Limits`, `rate` that of its `IoLimit`; `parse` raises `ValueError`."""

    metavar: str
    purpose: str
    limit: str
    parse: Callable[[object], Any]
    show: Callable[[Any], str] = str
    rate: str | None = None


def _number(raw: object) -> float:
    try:
        if not isinstance(raw, bool) and "_" not in str(raw):  # Python's own spelling
            return float(str(raw))
    except ValueError:
        pass
    raise ValueError(f"{raw!r} is no number of cores; write one such as 2 or 1.5")


def _count(raw: object) -> int:
    text = str(raw)
    if isinstance(raw, bool) or not (text.isascii() and text.isdigit() and len(text) < 20):  # noqa: PLR2004 - what 64 bits hold
        raise ValueError(f"{raw!r} is no whole number; write one such as 200")
    return int(text)


def _size(raw: object) -> int:
    return parse_size(raw) if isinstance(raw, str) else _count(raw)


def _rate(raw: object) -> int:
    return _size(raw.removesuffix("/s") if isinstance(raw, str) else raw)


def _text(raw: object) -> str:
    if not isinstance(raw, str) or not raw:
        raise ValueError(f"{raw!r} is no text")
    return raw


def _flag(raw: object) -> bool:
    if not isinstance(raw, bool):
        raise ValueError(f"{raw!r} is neither true nor false")
    return raw


def _option(limit: str, metavar: str, parse: Callable[[object], Any], purpose: str) -> LimitOption:
    show = format_size if parse is _size else "{:g}".format if parse is _number else str
    return LimitOption(limit=limit, metavar=metavar, parse=parse, show=show, purpose=purpose)


def _io(rate: str, metavar: str, parse: Callable[[object], Any], purpose: str) -> LimitOption:
    show = _shown_rate if parse is _rate else "{}/s".format
    return LimitOption(limit="io", rate=rate, metavar=metavar, parse=parse, show=show, purpose=purpose)


def _shown_rate(rate: int) -> str:
    return f"{format_size(rate)}/s"


OPTIONS: Mapping[str, LimitOption] = {
    "cpus": _option("cpus", "CORES", _number, "CPU time per time that passes; 1.5 is one and a half cores."),
    "cpu_weight": _option("cpu_weight", "1-10000", _count, "Share of the CPUs when they are short; others have 100."),
    "cpuset": _option("cpuset", "LIST", _text, "The CPUs to run on, such as 0-3,6."),
    "memory": _option("memory", "SIZE", _size, "Memory, such as 2G or 512MiB; who needs more is killed."),
    "memory_high": _option("memory_high", "SIZE", _size, "Memory from which on the job is slowed down, not killed."),
    "swap": _option("swap", "SIZE", _size, "Swap; none where memory is limited and nothing is said here."),
    "oom_group": _option("oom_group", "", _flag, "Whether running out of memory ends all of the job, or one process."),
    "pids": _option("pids", "N", _count, "Processes and threads."),
    "io_read": _io("read_bytes_per_second", "SIZE", _rate, "Bytes read from the disk in a second, such as 10M."),
    "io_write": _io("write_bytes_per_second", "SIZE", _rate, "Bytes written to the disk in a second, such as 10M."),
    "io_read_ops": _io("read_operations_per_second", "N", _count, "Reads from the disk in a second."),
    "io_write_ops": _io("write_operations_per_second", "N", _count, "Writes to the disk in a second."),
    "io_device": _io(
        "device", "PATH", _text, "Which disk the four are for: it, or a file on it. By default the job's."
    ),
    "io_weight": _option("io_weight", "1-10000", _count, "Share of the disks when they are busy; others have 100."),
}


def limits_of(values: Mapping[str, Any]) -> Limits:
    """The limits that values say, each under its option's name; `None` is not said.

    Raises `InvalidArgumentError`, and `ValueError` for a disk without a rate.
    """
    said = {name: value for name, value in values.items() if value is not None}
    rates = {rate: value for name, value in said.items() if (rate := OPTIONS[name].rate)}
    if rates.keys() == {"device"}:
        raise ValueError("io_device says which disk io_read, io_write, io_read_ops and io_write_ops are for; say one")
    plain = {OPTIONS[name].limit: value for name, value in said.items() if not OPTIONS[name].rate}
    return Limits(io=(IoLimit(**rates),) if rates else (), **plain)


def shown(limits: Limits) -> Iterator[tuple[str, str]]:
    """Names and values of the limits that are set, for people; several disks follow each other."""
    for name, option in OPTIONS.items():
        if option.rate is None and (value := getattr(limits, option.limit)) is not None:
            yield name, str(value).lower() if isinstance(value, bool) else option.show(value)
    for limit in limits.io:
        for name, option in OPTIONS.items():
            if option.rate is not None and (value := getattr(limit, option.rate)) is not None:
                yield name, value if option.rate == "device" else option.show(value)
