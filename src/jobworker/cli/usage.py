"""What jobs have used, for people and for programs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from jobworker.cli import text
from jobworker.core.usage import Usage

if TYPE_CHECKING:
    from jobworker.client import AsyncClient
    from jobworker.core.job import Job

UNKNOWN = "-"


async def job_and_usage(client: AsyncClient, job_id: str) -> tuple[Job, Usage | None]:
    """A job and what it has used; `None` where nobody knows."""
    from jobworker.core.errors import JobEndedError

    job = await client.get(job_id)
    if job.end is None:
        try:
            return job, await client.usage(job_id)
        except JobEndedError:  # meanwhile
            job = await client.get(job_id)
    return job, job.end.usage if job.end else None


def usage_json(usage: Usage | None) -> dict[str, Any] | None:
    """A usage for programs; what the kernel does not tell is null."""
    return None if usage is None else asdict(usage)


def usage_rows(usage: Usage) -> Iterator[tuple[str, str]]:
    """Labels and values, without what is not known."""
    if usage.cpu_seconds is not None:
        yield "cpu", _seconds(usage.cpu_seconds) + _parts(user=usage.user_seconds, system=usage.system_seconds)
    if usage.throttled_periods:
        yield "held back", f"{_seconds(usage.throttled_seconds)} by the CPU limit, in {usage.throttled_periods} periods"
    if usage.memory_bytes is not None or usage.memory_peak_bytes is not None:
        yield "memory", _now_and_peak(_size, usage.memory_bytes, usage.memory_peak_bytes)
    if usage.oom_kills:
        yield "oom kills", str(usage.oom_kills)
    if usage.io_read_bytes is not None or usage.io_write_bytes is not None:
        read = f"read {_size(usage.io_read_bytes)} in {usage.io_read_operations or 0} operations"
        yield "disk", f"{read}, written {_size(usage.io_write_bytes)} in {usage.io_write_operations or 0}"
    if usage.pids is not None or usage.pids_peak is not None:
        yield "processes", _now_and_peak(str, usage.pids, usage.pids_peak)
    waits = {
        "CPU": usage.cpu_pressure_seconds,
        "memory": usage.memory_pressure_seconds,
        "I/O": usage.io_pressure_seconds,
    }
    waited = [f"{what} {_seconds(seconds)}" for what, seconds in waits.items() if seconds]
    if waited:
        yield "waited", "for " + ", ".join(waited)


_SHORTEST_S = 0.1  # a rate over less says how the clocks tick


@dataclass(frozen=True, kw_only=True, slots=True)
class Load:
    """What a job uses now: a share of CPUs, and bytes a second, since an earlier look or, without one, on average."""

    cpus: float | None
    read: float | None
    write: float | None

    @classmethod
    def between(cls, before: Usage | None, now: Usage) -> Load:
        """The load between two looks at a job; it is not known where there was hardly any time between them."""
        before = before or Usage(wall_seconds=0, cpu_seconds=0, io_read_bytes=0, io_write_bytes=0)
        seconds = now.wall_seconds - before.wall_seconds
        if seconds < _SHORTEST_S:
            return cls(cpus=None, read=None, write=None)

        def rate(name: str) -> float | None:
            earlier, later = getattr(before, name), getattr(now, name)
            return None if earlier is None or later is None else max(later - earlier, 0) / seconds

        return cls(cpus=rate("cpu_seconds"), read=rate("io_read_bytes"), write=rate("io_write_bytes"))


HEADER = ("CPU", "CPU TIME", "MEMORY", "PEAK", "READ/S", "WRITE/S", "PROCS")


def usage_cells(usage: Usage, load: Load) -> Sequence[str]:
    """The cells under `HEADER`."""
    return (
        UNKNOWN if load.cpus is None else f"{load.cpus:.0%}",
        _seconds(usage.cpu_seconds),
        _size(usage.memory_bytes),
        _size(usage.memory_peak_bytes),
        UNKNOWN if load.read is None else _size(round(load.read)),
        UNKNOWN if load.write is None else _size(round(load.write)),
        UNKNOWN if usage.pids is None else str(usage.pids),
    )


def _seconds(seconds: float | None) -> str:
    if seconds is None:
        return UNKNOWN
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    if hours:
        return f"{hours}h {minutes}m"
    return f"{minutes}m {rest:.0f}s" if minutes else f"{rest:.2f}s"


def _size(count: int | None) -> str:
    return UNKNOWN if count is None else text.size(count)


def _parts(**seconds: float | None) -> str:
    known = ", ".join(f"{name} {_seconds(value)}" for name, value in seconds.items() if value is not None)
    return f" ({known})" if known else ""


def _now_and_peak(show: Any, now: int | None, peak: int | None) -> str:  # noqa: ANN401 -- a function of one number
    shown = [] if now is None else [f"{show(now)} now"]
    return ", ".join([*shown, *([] if peak is None else [f"{show(peak)} at most"])])
