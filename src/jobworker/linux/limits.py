"""Limits of a job as the files of its cgroup take them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jobworker.core.errors import LimitNotEnforceableError
from jobworker.core.limits import IoLimit, Limits
from jobworker.linux.disk import find_disk

Write = tuple[str, str]  # the name of a file, and what to write into it

PERIOD = 100_000  # microseconds in which a job may use its share of CPU time: the kernel's default

# For each limit its file and what the file holds where there is no limit.
FILES = {
    "cpus": ("cpu.max", f"max {PERIOD}"),
    "cpu_weight": ("cpu.weight", "100"),
    "cpuset": ("cpuset.cpus", "\n"),
    "memory": ("memory.max", "max"),
    "memory_high": ("memory.high", "max"),
    "swap": ("memory.swap.max", "max"),
    "oom_group": ("memory.oom.group", "0"),
    "pids": ("pids.max", "max"),
    "io": ("io.max", ""),
    "io_weight": ("io.weight", "default 100"),
}
_FORMS: dict[str, Callable[[Any], str]] = {
    "cpus": lambda cpus: f"{round(cpus * PERIOD)} {PERIOD}",
    "oom_group": lambda together: str(int(together)),
    "io_weight": lambda weight: f"default {weight}",
}
_RATES = {
    "rbps": "read_bytes_per_second",
    "wbps": "write_bytes_per_second",
    "riops": "read_operations_per_second",
    "wiops": "write_operations_per_second",
}


def writes(limits: Limits, *, cwd: str, before: Limits | None = None) -> list[Write]:
    """What to write into the files of a cgroup so that these limits are in force, in place of those `before`.

    Disks are looked for: it may block. Raises `LimitNotEnforceableError` for a disk that is not found.
    """
    before = before or Limits()
    found: list[Write] = []
    for name, (file, unlimited) in FILES.items():
        value, former = getattr(limits, name), getattr(before, name)
        if value == former:
            continue
        if name == "io":
            found += [(file, line) for line in _io_lines(limits.io, before.io, cwd)]
        elif value is not None:
            found.append((file, _FORMS.get(name, str)(value)))
        elif former is not None:
            found.append((file, unlimited))
    return found


def limit_of(file: str) -> str:
    """The limit that a file of a cgroup is for."""
    return next((name for name, (its, _) in FILES.items() if its == file), file)


def _io_lines(limits: tuple[IoLimit, ...], before: tuple[IoLimit, ...], cwd: str) -> list[str]:
    lines: dict[str, str] = {}
    for limit in limits:
        disk = find_disk(limit.device or cwd)
        if disk in lines:
            raise LimitNotEnforceableError("io", f"two of its limits are for the same disk ({disk}); give one")
        lines[disk] = _io_line(disk, limit)
    for former in {limit.device for limit in before} - {limit.device for limit in limits}:
        disk = find_disk(former or cwd)
        lines.setdefault(disk, _io_line(disk, IoLimit()))
    return list(lines.values())


def _io_line(disk: str, limit: IoLimit) -> str:
    rates = ((key, getattr(limit, name)) for key, name in _RATES.items())
    return f"{disk} " + " ".join(f"{key}={'max' if rate is None else rate}" for key, rate in rates)
