"""What the processes of a cgroup have used together, as its files tell it."""

from __future__ import annotations

import os

from jobworker.core.usage import Usage
from jobworker.linux import kernel_file

_DEVICES = "/sys/dev/block"
_MICROSECONDS = 1_000_000  # in a second


def read(path: str | os.PathLike[str], wall_seconds: float, *, ended: bool = False) -> Usage:
    """What a group has used up to now; `None` for what its kernel or its controllers do not tell.

    A group that is gone tells nothing but the time, and of one whose processes have `ended` nothing is of the moment.
    """
    group = os.fspath(path)
    cpu = _pairs(group, "cpu.stat")
    io = _devices(group)
    return Usage(
        wall_seconds=wall_seconds,
        cpu_seconds=_seconds(cpu.get("usage_usec")),
        user_seconds=_seconds(cpu.get("user_usec")),
        system_seconds=_seconds(cpu.get("system_usec")),
        throttled_seconds=_seconds(cpu.get("throttled_usec")),
        throttled_periods=cpu.get("nr_throttled"),
        memory_bytes=None if ended else _number(group, "memory.current"),
        memory_peak_bytes=_number(group, "memory.peak"),
        oom_kills=_pairs(group, "memory.events").get("oom_kill"),
        io_read_bytes=io.get("rbytes"),
        io_write_bytes=io.get("wbytes"),
        io_read_operations=io.get("rios"),
        io_write_operations=io.get("wios"),
        pids=None if ended else _number(group, "pids.current"),
        pids_peak=_number(group, "pids.peak"),
        cpu_pressure_seconds=_pressure(group, "cpu"),
        memory_pressure_seconds=_pressure(group, "memory"),
        io_pressure_seconds=_pressure(group, "io"),
    )


def _text(group: str, name: str) -> str | None:
    try:
        return kernel_file.read(f"{group}/{name}").decode()
    except OSError:  # the controller is off, the kernel is too old (EOPNOTSUPP: PSI is off), or the group is gone
        return None


def _number(group: str, name: str) -> int | None:
    text = _text(group, name)
    return None if text is None else int(text)


def _pairs(group: str, name: str) -> dict[str, int]:
    """A file of lines such as "usage_usec 12"."""
    words = (_text(group, name) or "").split()
    return {key: int(value) for key, value in zip(words[::2], words[1::2], strict=True)}


def _devices(group: str) -> dict[str, int]:
    """io.stat summed over its disks; a file without lines means that there was no I/O."""
    text = _text(group, "io.stat")
    if text is None:
        return {}
    sums = {"rbytes": 0, "wbytes": 0, "rios": 0, "wios": 0}
    counted = False
    for word in text.split():  # not by line: Linux 5.15 has no end of line after a device that has done nothing
        key, is_value, value = word.partition("=")
        if not is_value:
            counted = not _lies_on_others(word)
        elif counted and key in sums:
            sums[key] += int(value)
    return sums


def _lies_on_others(device: str) -> bool:
    """Whether a device hands its I/O on to others, for which it is counted again: device mapper, RAID, loop."""
    folder = f"{_DEVICES}/{device}"
    try:
        return bool(os.listdir(f"{folder}/slaves")) or os.path.exists(f"{folder}/loop/backing_file")
    except OSError:  # not a disk of this kind, or none that can be seen from here
        return False


def _pressure(group: str, resource: str) -> float | None:
    """How long some process was stalled, of lines such as "some avg10=0.00 avg60=0.00 avg300=0.00 total=12"."""
    text = _text(group, f"{resource}.pressure")
    return None if not text else _seconds(int(text.splitlines()[0].rpartition("total=")[2]))


def _seconds(microseconds: int | None) -> float | None:
    return None if microseconds is None else microseconds / _MICROSECONDS
