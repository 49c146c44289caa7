"""What a job has used of the machine."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Usage:
    """Resources that all processes of a job together have used since its start; `None` is what the kernel cannot tell.

    `throttled_seconds` is how long it was held back by its CPU limit, in `throttled_periods` periods. The pressures
    are how long at least one of its processes could not go on for want of CPU time, memory or I/O (PSI's "some").
    `memory_bytes` and `pids` are of the moment, and `None` once the job has ended.
    """

    wall_seconds: float
    cpu_seconds: float | None = None
    user_seconds: float | None = None
    system_seconds: float | None = None
    throttled_seconds: float | None = None
    throttled_periods: int | None = None
    memory_bytes: int | None = None
    memory_peak_bytes: int | None = None
    oom_kills: int | None = None
    io_read_bytes: int | None = None
    io_write_bytes: int | None = None
    io_read_operations: int | None = None
    io_write_operations: int | None = None
    pids: int | None = None
    pids_peak: int | None = None
    cpu_pressure_seconds: float | None = None
    memory_pressure_seconds: float | None = None
    io_pressure_seconds: float | None = None
