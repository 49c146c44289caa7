"""Resource limits of a job."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

from jobworker.core.errors import InvalidArgumentError

# What the kernel can express: cpu.max takes at least 1 ms of each period, which is 100 ms here; more CPUs it does not
# support anywhere; there are no more pids than PID_MAX_LIMIT.
MIN_CPUS, MAX_CPUS = 0.01, 8192
MIN_MEMORY, MAX_MEMORY = 1, 2**63 - 1
MAX_PIDS = 4_194_304
MIN_WEIGHT, MAX_WEIGHT = 1, 10_000
MAX_BYTE_RATE, MAX_OPERATION_RATE = 2**63 - 1, 2**32 - 2  # more operations would mean "unlimited"
MAX_DEVICES, MAX_DEVICE_CHARS = 8, 255  # of one job: a change of all of them has to fit into a message


@dataclass(frozen=True, kw_only=True, slots=True)
class IoLimit:
    """Limits of one block device; `None` is unlimited. Valid once built; raises `InvalidArgumentError`.

    `device` is the path of the device or of any file on it; `None` means the disk under the working directory. Rates
    are per second, in bytes and in operations.
    """

    device: str | None = None
    read_bytes_per_second: int | None = None
    write_bytes_per_second: int | None = None
    read_operations_per_second: int | None = None
    write_operations_per_second: int | None = None

    def __post_init__(self) -> None:
        _check_type("io.device", self.device, str)
        if self.device is not None and (not self.device.startswith("/") or "\0" in self.device):
            raise InvalidArgumentError(
                "limits.io.device", f"{self.device!r} is not absolute; name a block device, or a file or folder on it"
            )
        if self.device is not None and len(self.device) > MAX_DEVICE_CHARS:
            raise InvalidArgumentError("limits.io.device", f"has more than {MAX_DEVICE_CHARS} characters")
        for name in ("read", "write"):
            _check(f"io.{name}_bytes_per_second", getattr(self, f"{name}_bytes_per_second"), 1, MAX_BYTE_RATE)
            operations = f"{name}_operations_per_second"
            _check(f"io.{operations}", getattr(self, operations), 1, MAX_OPERATION_RATE)


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Resource limits of a job; `None` means the server's default. Valid once built; raises `InvalidArgumentError`.

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

    def __post_init__(self) -> None:
        _check("cpus", self.cpus, MIN_CPUS, MAX_CPUS, kind=(int, float))
        _check("cpu_weight", self.cpu_weight, MIN_WEIGHT, MAX_WEIGHT)
        _check("memory", self.memory, MIN_MEMORY, MAX_MEMORY)
        _check("memory_high", self.memory_high, MIN_MEMORY, MAX_MEMORY)
        _check("swap", self.swap, 0, MAX_MEMORY)
        _check("pids", self.pids, 1, MAX_PIDS)
        _check("io_weight", self.io_weight, MIN_WEIGHT, MAX_WEIGHT)
        _check_type("oom_group", self.oom_group, bool)
        _check_type("cpuset", self.cpuset, str)
        if self.cpuset is not None:
            for _ in cpu_ranges(self.cpuset):  # which is the check
                pass
        _check_type("io", self.io, tuple)
        for limit in self.io:
            _check_type("io", limit, IoLimit)
        if len(self.io) > MAX_DEVICES:
            raise InvalidArgumentError("limits.io", f"names {len(self.io)} devices; at most {MAX_DEVICES} are possible")
        if len({limit.device for limit in self.io}) < len(self.io):
            raise InvalidArgumentError("limits.io", "names a device twice")

    def requested(self) -> tuple[str, ...]:
        """Names of the limits that are set, in the order of their declaration."""
        return tuple(name for name in LIMITS if getattr(self, name) not in (None, ()))


LIMITS = tuple(field.name for field in fields(Limits))


def cpu_ranges(cpuset: str) -> Iterator[range]:
    """The CPUs of a list such as "0-3,6". Raises `InvalidArgumentError`."""
    for part in cpuset.split(","):
        first, dash, last = part.partition("-")
        if not _is_cpu(first) or (dash and not _is_cpu(last)):
            raise InvalidArgumentError("limits.cpuset", f"{cpuset!r} is no list of CPUs; write one such as 0-3,6")
        start, stop = int(first), int(last or first)
        if start > stop:
            raise InvalidArgumentError("limits.cpuset", f"{part!r} ends before it begins; write {stop}-{start}")
        yield range(start, stop + 1)


def _is_cpu(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= len(str(MAX_CPUS)) and int(text) < MAX_CPUS


def _check(
    name: str, value: float | None, minimum: float, maximum: float, *, kind: type | tuple[type, ...] = int
) -> None:
    """Refuse what is no number, or out of range; so is a NaN."""
    _check_type(name, value, kind)
    if value is None or minimum <= value <= maximum:
        return
    bound = f"at most {maximum}" if value > maximum else f"at least {minimum}"
    raise InvalidArgumentError(f"limits.{name}", f"{value} cannot be; it has to be {bound}")


def _check_type(name: str, value: object, kind: type | tuple[type, ...]) -> None:
    """Refuse what is not of the declared type: nobody checks that before a program runs. A bool is no number."""
    if value is None or (isinstance(value, kind) and (kind is bool or not isinstance(value, bool))):
        return
    kinds = kind if isinstance(kind, tuple) else (kind,)
    raise InvalidArgumentError(
        f"limits.{name}", f"{value!r} cannot be; it has to be of type {' or '.join(one.__name__ for one in kinds)}"
    )


NO_LIMITS = Limits()
