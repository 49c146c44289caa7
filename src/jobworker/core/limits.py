"""Resource limits of a job."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True, kw_only=True, slots=True)
class IoLimit:
    """Limits of one block device; `None` is unlimited.

    `device` is the path of the device or of any file on it; `None` means the disk under the working directory. Rates
    are per second, in bytes and in operations.
    """

    device: str | None = None
    read_bytes_per_second: int | None = None
    write_bytes_per_second: int | None = None
    read_operations_per_second: int | None = None
    write_operations_per_second: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Resource limits of a job; `None` means the server's default.

    `cpus` is in cores, `memory`, `memory_high` and `swap` are in bytes, `pids` counts processes and threads, the
    weights go from 1 to 10000 (the kernel's default is 100), `cpuset` has the kernel's list form ("0-3,6").
    """

    cpus: float | None = None
    cpu_weight: int | None = None
    cpuset: str | None = None
    memory: int | None = None
    memory_high: int | None = None
    swap: int | None = None
    oom_group: bool | None = None
    pids: int | None = None
    io: tuple[IoLimit, ...] = ()
    io_weight: int | None = None

    def requested(self) -> tuple[str, ...]:
        """Names of the limits that are set, in the order of their declaration."""
        return tuple(field.name for field in fields(self) if getattr(self, field.name) not in (None, ()))
