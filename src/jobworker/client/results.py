"""What a client's calls give."""

from __future__ import annotations

import signal as signals
from collections.abc import Mapping
from dataclasses import dataclass, field

from jobworker.core.errors import JobworkerError
from jobworker.core.job import Job
from jobworker.core.limits import Limits
from jobworker.core.output import Gap
from jobworker.core.state import Cause

EXIT_TIMED_OUT = 124  # as timeout(1) says
EXIT_UNKNOWN = 125  # the end is not known; as docker, env and timeout say of their own failures

# How to say by a number that a job did not end by itself, where its first process left 0 or nobody knows what.
_EXIT_BY_CAUSE = {
    Cause.STOPPED: 128 + signals.SIGTERM,
    Cause.OOM_KILLED: 128 + signals.SIGKILL,
    Cause.OUTPUT_LIMIT: 128 + signals.SIGXFSZ,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerInfo:
    """What a server is and what it can enforce; see the message of the same name in the API for the values.

    Limits have the names of the fields of `Limits`; `missing_limits` says of each why it cannot be enforced.
    `limit_defaults` and `limit_maximums` are those of the caller's jobs.
    """

    version: str
    executor: str
    enforceable_limits: tuple[str, ...]
    process_tracking: str
    durability: str
    job_user: str
    cgroups: str
    missing_limits: Mapping[str, str]
    limit_defaults: Limits
    limit_maximums: Limits


@dataclass(frozen=True, kw_only=True, slots=True)
class RunResult:
    """A job that has ended, and its output: `output` is all of it, in the order of writing or, if split, of arrival.

    `stdout` and `stderr` tell apart that of a job whose output is split; else all is `stdout`. `gaps` are what is
    missing.
    """

    job: Job
    output: bytes = field(repr=False)
    stdout: bytes = field(repr=False)
    stderr: bytes = field(repr=False)
    gaps: tuple[Gap, ...] = ()

    @property
    def exit_code(self) -> int:
        """One number for how it ended; see `exit_code`."""
        return exit_code(self.job)


class JobFailedError(JobworkerError):
    """A job that was run with `check` did not exit with 0. `result` has the job and its output."""

    def __init__(self, result: RunResult) -> None:
        super().__init__(f"job {result.job.id} ended with code {result.exit_code}")
        self.result = result


class RunTimeoutError(JobworkerError):
    """A job ran longer than the caller of `run` would wait, and was stopped. `result` has the job and its output."""

    def __init__(self, result: RunResult) -> None:
        super().__init__(f"job {result.job.id} was stopped, because it ran longer than its caller would wait")
        self.result = result


def exit_code(job: Job) -> int:
    """One number, as a shell would say it, for how a job ended; 0 only if it exited with 0 by itself.

    The exit code of its first process, or 128 and the signal that ended it; 124 when the time limit was reached, 125
    when the job was lost. Raises `ValueError` for a job that runs.
    """
    if job.end is None:
        raise ValueError(f"job {job.id} has not ended")
    if job.end.cause is Cause.TIMED_OUT:
        return EXIT_TIMED_OUT
    if job.end.cause is Cause.LOST:
        return EXIT_UNKNOWN
    code = job.end.exit_code if job.end.signal is None else 128 + job.end.signal
    if code is None or (code == 0 and job.end.cause is not Cause.EXITED):
        return _EXIT_BY_CAUSE.get(job.end.cause, EXIT_UNKNOWN)
    return code
