"""The errors that callers can react to, in process and over the wire alike.

    JobworkerError
    ├── InvalidArgumentError        the request itself is wrong; names the field
    │   └── LimitAboveMaximumError  more was asked for than this server gives; states its maximum
    ├── CommandNotStartedError      the program could not be executed; carries errno
    ├── LimitNotEnforceableError    a resource limit was asked for that this server cannot enforce
    ├── PauseNotSupportedError      jobs cannot be paused on this server
    ├── QuotaExceededError          a bound of the server was reached; states the bound
    ├── JobNotFoundError            no such job, or not the caller's
    ├── JobEndedError               the job has ended, so this cannot be done any more
    ├── JobNotEndedError            the job runs, so this cannot be done yet
    ├── RequestIdReusedError        the request id belongs to a different start
    ├── OffsetOutOfRangeError       no output at this offset; carries the valid range
    ├── OutputUnavailableError      the output is in an archive that does not give it now
    ├── UnauthenticatedError        the caller's certificate does not say who it is or what it may do
    ├── PermissionDeniedError       the caller's roles do not allow this
    ├── StoreError                  the job database cannot be used
    ├── ServerUnavailableError      the server cannot be reached, or not in time
    └── InternalError               a fault of the server; carries an id to look up in its log

Every class keeps what a program needs in attributes and says the same in its text.
"""

from __future__ import annotations

import errno as errno_names
import os
import re

from jobworker.core.units import format_size

_BEGINNING_OF_ID = re.compile(r"[0-9a-f-]{4,35}")  # which the command line takes, after a search

OUTPUT_ON_DISK = "bytes of output on the disk"  # a resource of `QuotaExceededError`


class JobworkerError(Exception):
    """Base of all errors of jobworker."""


class InvalidArgumentError(JobworkerError):
    """A request is wrong in itself, whatever the state of the server.

    `field` is the path of the wrong field, such as "spec.argv"; `problem` says what is wrong and what would be right.
    """

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem


class LimitAboveMaximumError(InvalidArgumentError):
    """A job asked for more than it may have.

    `limit` is the name of the field of `Limits` ("io.read_bytes_per_second" for one of its disks), `maximum` the most
    that there is, in the field's own unit.
    """

    def __init__(self, limit: str, maximum: str) -> None:
        in_bytes = maximum.isdecimal() and any(word in limit for word in ("memory", "swap", "bytes"))
        shown = format_size(int(maximum)) if in_bytes else maximum
        super().__init__(f"limits.{limit}", f"is above the maximum of {shown} on this server")
        self.limit = limit
        self.maximum = maximum


class CommandNotStartedError(JobworkerError):
    """The program could not be executed; nothing of the job is left.

    `errno` is the kernel's error number, `stage` the step that failed ("exec", "interpreter", "chdir", "setuid", ...)
    and `subject` what it failed on (a program, a directory).
    """

    def __init__(self, *, errno: int, stage: str, subject: str) -> None:
        match stage:
            case "chdir":
                what = f"enter the working directory {subject!r}"
            case "interpreter":
                what = f"execute {subject!r}, which the #! line of the program names"
            case _:
                what = f"start {subject!r}"
        super().__init__(f"cannot {what}: {self._explain(errno, stage, subject)}")
        self.errno = errno
        self.stage = stage
        self.subject = subject

    @staticmethod
    def _explain(errno: int, stage: str, subject: str) -> str:
        problem = os.strerror(errno)
        match stage, errno:
            case "exec", errno_names.ENOENT:
                where = "" if subject.startswith("/") else ", where a job's working directory is / by default"
                where = where if "/" in subject else "; PATH is the job's, no shell is involved"
                return f"command not found (on the server{where})"
            case "exec", errno_names.EACCES:
                return "permission denied (is it executable for the user that jobs run as?)"
            case "exec", errno_names.ENOEXEC:
                return "not in an executable format (a script needs a #! line)"
            case (("exec" | "chdir" | "interpreter"), _):
                return problem
            case _, (errno_names.ENOSPC | errno_names.EDQUOT):
                return f"the server's disk is full ({stage}: {problem})"
            case _:
                return f"{stage} failed: {problem}"

    @property
    def not_found(self) -> bool:
        """Whether the program does not exist (shells say 127), rather than exists and cannot be run (126)."""
        return self.stage == "exec" and self.errno == errno_names.ENOENT


class LimitNotEnforceableError(JobworkerError):
    """A limit was asked for that this server cannot enforce.

    `limit` is the name of the field of `Limits`; `problem` names the others that cannot be had either.
    """

    def __init__(self, limit: str, problem: str) -> None:
        super().__init__(f"limits.{limit}: {problem}")
        self.limit = limit
        self.problem = problem


class PauseNotSupportedError(JobworkerError):
    """The jobs of this server are not kept in cgroups of version 2, which is what can be paused."""

    def __init__(self, text: str = "jobs cannot be paused on this server: it has no cgroup v2") -> None:
        super().__init__(text)


class QuotaExceededError(JobworkerError):
    """A bound of the server was reached. `resource` names it, such as "running jobs of alice"; `bound` is its value."""

    def __init__(self, resource: str, bound: int) -> None:
        if resource == OUTPUT_ON_DISK:
            reached = f"the limit of {format_size(bound)} of output on the server's disk (max_state_bytes) is reached"
            super().__init__(f"{reached}: remove ended jobs")
        else:
            super().__init__(f"the limit of {bound} {resource} is reached")
        self.resource = resource
        self.bound = bound


class JobNotFoundError(JobworkerError):
    """There is no such job, or it is somebody else's: the two cannot be told apart."""

    def __init__(self, job_id: str) -> None:
        hint = " (an id is written whole here)" if _BEGINNING_OF_ID.fullmatch(job_id) else ""
        super().__init__(f"no job {job_id!r}{hint}")
        self.job_id = job_id


class JobEndedError(JobworkerError):
    """The job has ended. `state` is the value of its state, such as "FINISHED"."""

    def __init__(self, job_id: str, *, action: str, state: str) -> None:
        super().__init__(f"cannot {action} job {job_id}: already {state.lower()}")
        self.job_id = job_id
        self.action = action
        self.state = state


class JobNotEndedError(JobworkerError):
    """The job runs."""

    def __init__(self, job_id: str, *, action: str) -> None:
        super().__init__(f"cannot {action} job {job_id}: still running (stop it first)")
        self.job_id = job_id
        self.action = action


class RequestIdReusedError(JobworkerError):
    """The request id was used by the same owner to start a different job."""

    def __init__(self, request_id: str) -> None:
        super().__init__(f"request id {request_id} was already used to start a different job")
        self.request_id = request_id


class OffsetOutOfRangeError(JobworkerError):
    """There is no output at this offset. Valid offsets are `first` to `end`, both included."""

    def __init__(self, job_id: str, *, offset: int, first: int, end: int) -> None:
        super().__init__(f"no output of job {job_id} at offset {offset}: valid offsets are {first} to {end}")
        self.job_id = job_id
        self.offset = offset
        self.first = first
        self.end = end


class OutputUnavailableError(JobworkerError):
    """The output of a job has been moved to an archive, which does not answer or does not give it. It may do so later.

    Why is for those who run the server: its log says it.
    """

    def __init__(self, job_id: str) -> None:
        super().__init__(f"the output of job {job_id} is in an archive that cannot be used now; try again later")
        self.job_id = job_id


class UnauthenticatedError(JobworkerError):
    """The caller's certificate does not say who it is or what it may do."""


class PermissionDeniedError(JobworkerError):
    """The caller is known, and its roles do not allow the call."""


class StoreError(JobworkerError):
    """The job database cannot be used: it is corrupt, from a newer version, read-only, or its disk is full."""


class ServerUnavailableError(JobworkerError):
    """The server cannot be reached or did not answer in time; the call may or may not have had an effect."""


class InternalError(JobworkerError):
    """A fault of the server. `incident` is the id under which its log has the details."""

    def __init__(self, incident: str) -> None:
        super().__init__(f"internal error of the server; its log has the details under {incident}")
        self.incident = incident
