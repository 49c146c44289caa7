"""From a supervisor to a job's program: a child in the job's cgroup that prepares everything, and becomes the program.

All that a start takes is done in the child, so that the supervisor, which lives as long as the job, does not have to
copy the memory for it.
"""

from __future__ import annotations

import errno
import json
import os
import select
import signal
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import NoReturn

from jobworker.core.records import Record, time_text
from jobworker.linux import process, sandbox, syscalls
from jobworker.linux.cgroup import Cgroup
from jobworker.runtime import jobdir
from jobworker.runtime.jobdir import JobDir

# Where clone3 cannot do it (an old kernel, a seccomp filter, an emulator), the child moves itself. Any other error is a
# real fault, such as EBUSY for a group that may hold no processes.
_NO_CLONE_INTO_CGROUP = frozenset({errno.ENOSYS, errno.EINVAL, errno.E2BIG, errno.EOPNOTSUPP, errno.EPERM, errno.EBADF})
_NO_ROOM = frozenset({errno.EAGAIN, errno.ENOMEM})  # for one more process

_UMASK = 0o022  # as everywhere; the supervisor's own is for what only we may read
_MAX_SUBJECT_CHARS = 1000  # of what has failed: the message has to fit into a packet
_MAX_INTERPRETER_BYTES = 256  # of a #! line, as many as the kernel looks at
_REPORT_BYTES = 16 * 1024

# Seconds that a start may take in the child. It is a millisecond, unless the working directory or the program are on a
# file system that does not answer.
START_PATIENCE = 30.0


class LaunchError(Exception):
    """The program could not be executed: `errno` at `stage`, which failed on `subject`; the program if it is empty."""

    def __init__(self, number: int, stage: str, subject: str = "") -> None:
        super().__init__(f"{stage}: {os.strerror(number)}")
        self.errno = number
        self.stage = stage
        self.subject = subject


def launch(directory: JobDir, *, outputs: tuple[int, int], cgroup: Cgroup | None) -> tuple[int, str]:
    """Execute the program of a directory's spec, `outputs` being stdout and stderr; its pid and the start time.

    The process leads a session of its own, and has recorded who it is. Only from a single-threaded
    process. Raises `LaunchError`, after which no process is left, unless the kernel does not let go of it.
    """
    supervisor = os.getpid()
    report_read, report_write = os.pipe2(os.O_CLOEXEC)
    try:
        pid, born_inside = _fork(cgroup)
        if pid == 0:
            try:
                Launch(directory, report_write).become_job(outputs, None if born_inside else cgroup, supervisor)
            finally:
                os._exit(127)
        os.close(report_write)
        report_write = -1
        started, failed = _read_report(report_read, pid)
    finally:
        for fd in (report_read, report_write):
            if fd >= 0:
                os.close(fd)
    if failed or not started:
        os.waitpid(pid, 0)
        raise LaunchError(**json.loads(failed)) if failed else LaunchError(errno.EIO, "prepare")
    return pid, started.decode()


def _read_report(fd: int, pid: int) -> tuple[bytes, bytes]:
    """What the child says: when it was about to execute the program, and what has failed, if something has.

    The end of the report is that of the child's copy of the pipe, which executing the program closes. A child that
    takes too long is killed and not waited for, since it may be in a call that nothing interrupts.
    """
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    report = b""
    deadline = time.monotonic() + START_PATIENCE
    while poller.poll(max(0.0, deadline - time.monotonic()) * 1000):
        piece = os.read(fd, _REPORT_BYTES)
        if not piece:
            started, _, failed = report.partition(b"\n")
            return started, failed
        report += piece
    os.kill(pid, signal.SIGKILL)
    raise LaunchError(errno.ETIMEDOUT, "exec")


def _fork(cgroup: Cgroup | None) -> tuple[int, bool]:
    """Fork, if possible into the group; the pid (0 in the child) and whether the child was born in the group."""
    if cgroup is not None:
        fd = cgroup.open()
        try:
            return syscalls.clone_into_cgroup(fd), True
        except OSError as error:
            if error.errno not in _NO_CLONE_INTO_CGROUP:
                raise LaunchError(error.errno or errno.EIO, "fork" if error.errno in _NO_ROOM else "cgroup") from None
        finally:
            os.close(fd)
    try:
        return os.fork(), False
    except OSError as error:
        raise LaunchError(error.errno or errno.EIO, "fork") from None


class Launch:
    """The child's part. Nothing of it returns: it becomes the program, or reports what has failed and exits."""

    def __init__(self, directory: JobDir, report: int) -> None:
        self._directory = directory
        self._report = report
        self._stage = "prepare"
        self._subject = ""

    def become_job(self, outputs: tuple[int, int], cgroup: Cgroup | None, supervisor: int) -> None:
        """Prepare and execute. `cgroup` is one to move into."""
        try:
            self._become_job(outputs, cgroup, supervisor)
        except OSError as error:
            self._fail(error.errno or errno.EIO)
        except BaseException:  # noqa: BLE001 - nothing may return into the supervisor's code, so it is reported here
            self._fail(errno.EINVAL)

    def _become_job(self, outputs: tuple[int, int], cgroup: Cgroup | None, supervisor: int) -> None:
        record = self._directory.read(jobdir.SPEC)
        if record is None:
            raise FileNotFoundError(errno.ENOENT, "the job directory has no spec", jobdir.RECORDS)
        spec, launch_ = record["job"]["spec"], record["launch"]
        self._at("cgroup")
        if cgroup is not None:
            cgroup.add(0)
        if launch_["cgroup"] is not None:
            for file, value in launch_.get("limits", ()):
                self._at("limit", file)
                Cgroup(launch_["cgroup"]).write(file, value)
        self._at("session")
        os.setsid()
        _take_streams(outputs, owner=launch_["uid"])
        self._record_start(sync=launch_["sync"])
        os.umask(_UMASK)
        with suppress(PermissionError):  # it is above 0, and only root may lower it: not the supervisor's then
            sandbox.set_oom_score(0)
        self._at("setuid")
        sandbox.give_up_privileges(sandbox.Identity(launch_["uid"], launch_["gid"], launch_["groups"]))
        syscalls.set_parent_death_signal(signal.SIGKILL)
        if os.getppid() != supervisor:  # it died before it could be told of
            os._exit(127)
        self._at("chdir", spec["cwd"])
        os.chdir(spec["cwd"])
        self._at("exec", spec["argv"][0])
        sandbox.unblock_signals()
        try:
            _execute(spec["argv"], launch_["env"])
        except FileNotFoundError as error:
            if interpreter := _interpreter_of(error.filename):
                self._at("interpreter", interpreter)
            raise

    def _record_start(self, *, sync: bool) -> None:
        """Keep who this is before it is anybody who could do harm: no process of a job is without a record."""
        self._at("prepare")
        started = time_text(datetime.now(UTC))
        identity: Record = process.identify(os.getpid())._asdict()
        self._directory.write(jobdir.STARTED, {"time": started, "process": identity}, sync=sync)
        os.write(self._report, started.encode())

    def _at(self, stage: str, subject: str = "") -> None:
        self._stage = stage
        self._subject = subject

    def _fail(self, number: int) -> None:
        failed = {"number": number, "stage": self._stage, "subject": self._subject[:_MAX_SUBJECT_CHARS]}
        os.write(self._report, b"\n" + json.dumps(failed).encode())


def _take_streams(outputs: tuple[int, int], *, owner: int) -> None:
    if os.geteuid() == 0:
        for output in outputs:
            os.fchown(output, owner, -1)  # else the job may not open /dev/stdout
    null = os.open(os.devnull, os.O_RDONLY)
    for target, source in enumerate((null, *outputs)):
        os.dup2(source, target)


def _execute(argv: list[str], env: dict[str, str]) -> NoReturn:
    """Execute the first file that may be meant and can be executed, as execvp(3); raise the error that says most."""
    refused: OSError | None = None
    missing: OSError | None = None
    for path in _candidates(argv[0], env.get("PATH", "")):
        try:
            os.execve(path, argv, env)
        except (FileNotFoundError, NotADirectoryError) as error:
            if missing is None or os.path.exists(path):  # of a script that is there it is the interpreter
                missing = error
        except PermissionError as error:
            refused = error
    raise refused or missing or FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))


def _interpreter_of(script: str | None) -> str:
    """What the #! line of a file names, which the kernel has not found if it says so of a file that is there."""
    try:
        with open(script or "", "rb") as file:
            first = file.readline(_MAX_INTERPRETER_BYTES)
    except OSError:
        return ""
    words = first[2:].split() if first.startswith(b"#!") else []
    return os.fsdecode(words[0]) if words else ""


def _candidates(program: str, path: str) -> list[str]:
    """The files that may be meant by a program's name, in the order of PATH."""
    if "/" in program:
        return [program]
    return [os.path.join(directory or ".", program) for directory in path.split(":")]
