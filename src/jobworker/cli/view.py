"""Jobs as people and programs see them."""

from __future__ import annotations

import json
import shlex
from collections.abc import Collection, Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from jobworker.cli import text
from jobworker.cli.usage import usage_json, usage_rows
from jobworker.core.job import Job, signal_name
from jobworker.core.limit_options import OPTIONS, shown
from jobworker.core.limits import Limits
from jobworker.core.output import OutputMode
from jobworker.core.records import time_text
from jobworker.core.state import Cause, JobState
from jobworker.core.units import format_duration, format_size
from jobworker.core.usage import Usage

if TYPE_CHECKING:
    from jobworker.client import ServerInfo

_COLOURS = {
    JobState.RUNNING: "cyan",
    JobState.STOPPED: "yellow",
    JobState.FINISHED: None,
    JobState.LOST: "red",
}
_LABEL_COLUMNS = 10


def job_json(job: Job, usage: Usage | None = None) -> dict[str, Any]:
    """A job for programs. Fields are added here, never renamed or removed; one without a value is null.

    `usage` is that of a job that runs; one that has ended knows its own.

    Times are ISO 8601 in UTC, durations are seconds, sizes bytes. The values of the environment are left out: they may
    be secrets, and this is printed.
    """
    end, stop = job.end, job.stop
    return {
        "id": job.id,
        "name": job.spec.name,
        "state": job.state.value,
        "cause": end and end.cause.value,
        "exit_code": end and end.exit_code,
        "signal": end and end.signal,
        "signal_name": signal_name(end.signal) if end and end.signal is not None else None,
        "owner": job.owner,
        "argv": list(job.spec.argv),
        "cwd": job.spec.cwd,
        "env_names": sorted(job.spec.env),
        "labels": dict(job.spec.labels),
        "time_limit": job.spec.time_limit and job.spec.time_limit.total_seconds(),
        "child_policy": job.spec.child_policy.value,
        "create_time": time_text(job.create_time),
        "start_time": job.start_time and time_text(job.start_time),
        "end_time": end and time_text(end.end_time),
        "stopped_by": stop and stop.requested_by,
        "stop_time": stop and time_text(stop.request_time),
        "output_bytes": end.output_bytes if end else job.output_bytes,
        "output_first_offset": end.output_first_offset if end else job.output_first_offset,
        "output_dropped_bytes": end.output_dropped_bytes if end else 0,
        "output_mode": job.spec.output.value,
        "output_limit_bytes": job.output_limit.size,
        "output_policy": job.output_limit.policy and job.output_limit.policy.value,
        "paused": job.paused,
        "unkillable_pids": list(job.unkillable_pids),
        "limits": asdict(job.limits),
        "usage": usage_json(usage or (end and end.usage)),
    }


def print_job(job: Job, output: str, usage: Usage | None = None) -> None:
    """Print one job, with what it has used if it runs: a JSON object, or lines for people."""
    click.echo(json.dumps(job_json(job, usage), indent=2) if output == "json" else "\n".join(_lines(job, usage)))


def print_info(info: ServerInfo, output: str) -> None:
    """Print what a server is."""
    values: dict[str, Any] = {
        "version": info.version,
        "executor": info.executor,
        "enforceable_limits": ", ".join(info.enforceable_limits),
        "process_tracking": info.process_tracking,
        "durability": info.durability,
        "job_user": info.job_user,
        "cgroups": info.cgroups,
    }
    limits = {"limit_defaults": info.limit_defaults, "limit_maximums": info.limit_maximums}
    if output == "json":
        values["enforceable_limits"] = list(info.enforceable_limits)
        values["missing_limits"] = dict(info.missing_limits)
        click.echo(json.dumps(values | {name: asdict(value) for name, value in limits.items()}, indent=2))
        return
    for name, value in values.items():
        _print_row(name, value or "none")
    for limit, reason in info.missing_limits.items():
        _print_row("missing limit", f"{limit}: {reason}")
    for name, value in limits.items():
        _print_row(name, limits_text(value, info.missing_limits) or "none")


def _print_row(name: str, value: str) -> None:
    click.echo(f"{name.replace('_', ' '):<18}  {text.printable(value)}")


def command_line(job: Job) -> str:
    """What was run, as one would type it, harmless to a terminal."""
    return text.printable(shlex.join(job.spec.argv))


def state_colour(job: Job) -> str | None:
    """The colour of a job's state; red where it ended badly by itself."""
    if job.state is JobState.FINISHED:
        end = job.end
        return "green" if end and end.cause is Cause.EXITED and end.exit_code == 0 else "red"
    return _COLOURS[job.state]


def ending(job: Job) -> str:  # noqa: PLR0911 -- one for each cause
    """Why a job ended, in a few words: "exit 3", "signal SIGKILL", "stopped by alice"; before, what holds it."""
    end = job.end
    if end is None:
        if job.unkillable_pids:
            return "cannot be killed"
        return "being stopped" if job.stop else "paused" if job.paused else ""
    how = f"exit {end.exit_code}" if end.signal is None else f"signal {signal_name(end.signal)}"
    match end.cause:
        case Cause.EXITED | Cause.SIGNALED:
            return how
        case Cause.STOPPED:
            return f"stopped by {text.printable(job.stop.requested_by)}" if job.stop else "stopped"
        case Cause.TIMED_OUT:
            limit = job.spec.time_limit
            return f"time limit of {format_duration(limit)}" if limit else "time limit"
        case Cause.OOM_KILLED:
            return "out of memory"
        case Cause.OUTPUT_LIMIT:
            limit = job.output_limit.size
            return f"output limit of {format_size(limit)}" if limit else "output limit"
        case Cause.LOST:
            return "end not recorded"


def explanation(job: Job) -> str | None:
    """A sentence about an end that its exit code does not say; `None` where the code says it all."""
    end = job.end
    if end is None:
        return None
    dropped = f"; {text.size(end.output_dropped_bytes)} of output could not be kept" if end.output_dropped_bytes else ""
    if end.usage and end.usage.oom_kills and end.cause is not Cause.OOM_KILLED:
        killed = end.usage.oom_kills
        dropped = f"; {killed} of its processes {'was' if killed == 1 else 'were'} killed, out of memory{dropped}"
    match end.cause:
        case Cause.EXITED if not dropped:
            return None
        case Cause.EXITED:
            how = f"exited with {end.exit_code}"
        case Cause.SIGNALED:
            how = f"was ended by {ending(job)}"
        case Cause.STOPPED:
            how = f"was {ending(job)}"
        case Cause.TIMED_OUT | Cause.OUTPUT_LIMIT:
            how = f"reached its {ending(job)} and was ended"
        case Cause.OOM_KILLED:
            memory = job.limits.memory
            how = f"ran out of memory{f' (its limit is {format_size(memory)})' if memory else ''} and was killed"
        case Cause.LOST:
            how = "is lost: its supervisor or its machine died before an end was recorded"
    return f"job {job.id} {how}{dropped}"


def _lines(job: Job, usage: Usage | None) -> Iterator[str]:
    now = datetime.now(UTC)
    for label, value in _rows(job, now, usage or (job.end and job.end.usage)):
        yield f"{label:<{_LABEL_COLUMNS}}  {value}"


def _rows(job: Job, now: datetime, usage: Usage | None) -> Iterator[tuple[str, str]]:
    end, how = job.end, ending(job)
    yield "id", job.id
    if job.spec.name:
        yield "name", text.printable(job.spec.name)
    yield "state", text.coloured(job.state.value, state_colour(job)) + (f" ({how})" if how else "")
    yield "command", command_line(job)
    yield "directory", text.printable(job.spec.cwd)
    yield "owner", text.printable(job.owner)
    if job.spec.labels:
        yield "labels", " ".join(f"{key}={text.printable(value)}" for key, value in job.spec.labels.items())
    if job.spec.time_limit is not None:
        yield "time limit", format_duration(job.spec.time_limit)
    if job.limits.requested():
        yield "limits", limits_text(job.limits)
    if job.unkillable_pids:
        pids = ", ".join(map(str, job.unkillable_pids))
        yield "killed, but alive", f"processes {pids} of the server, in a system call that nothing interrupts"
    yield "started", text.when(job.start_time or job.create_time, now)
    if end is not None:
        yield "ended", text.when(end.end_time, now)
        if job.start_time is not None:
            yield "wall time", text.age(end.end_time - job.start_time)
    yield "output", _output(job)
    if usage is not None:
        yield from usage_rows(usage)


def _output(job: Job) -> str:
    """How much a job has written, what of it is not kept, and its limit."""
    first, dropped = (
        (job.end.output_first_offset, job.end.output_dropped_bytes) if job.end else (job.output_first_offset, 0)
    )
    size, policy = job.output_limit.size, job.output_limit.policy
    return (
        text.size(job.end.output_bytes if job.end else job.output_bytes)
        + (" in two streams" if job.spec.output is OutputMode.SPLIT else "")
        + (f", the first {text.size(first)} of which made room for the rest" if first else "")
        + (f", {text.size(dropped)} of which could not be kept" if dropped else "")
        + (f" (limit {format_size(size)}, {policy.value.lower().replace('_', '-')})" if size and policy else "")
    )


def limits_text(limits: Limits, missing: Collection[str] = ()) -> str:
    """Limits for people, as one line; of those that are `missing` here it says that they are not in force."""
    return ", ".join(
        f"{name.replace('_', '-')} {text.printable(value)}"
        + (" (not enforced)" if OPTIONS[name].limit in missing else "")
        for name, value in shown(limits)
    )
