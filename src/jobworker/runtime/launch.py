"""From a supervisor to a job's program: a child that is born in the job's cgroup, and becomes the program.

The supervisor prepares what it can before there is a child, and waits until that has executed the program: what either
of them writes to has to be copied, page by page, and in Python running a function writes to it. So the child runs few
of them: it goes through a list of steps, most of which are system calls.
"""

from __future__ import annotations

import errno
import json
import os
import select
import signal
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, NoReturn

from jobworker.core.records import Record, time_text
from jobworker.linux import process, sandbox, syscalls
from jobworker.linux.cgroup import Cgroup
from jobworker.runtime import jobdir
from jobworker.runtime.jobdir import JobDir

Step = tuple[str, str, Callable[..., object], tuple[Any, ...]]  # stage and subject as in `LaunchError`, a call

# Where clone3 cannot do it (an old kernel, a seccomp filter, an emulator), the child moves itself. Any other error is a
# real fault, such as EBUSY for a group that may hold no processes.
_NO_CLONE_INTO_CGROUP = frozenset({errno.ENOSYS, errno.EINVAL, errno.E2BIG, errno.EOPNOTSUPP, errno.EPERM, errno.EBADF})
_NO_ROOM = frozenset({errno.EAGAIN, errno.ENOMEM})  # for one more process

_UMASK = 0o022  # as everywhere; the supervisor's own is for what only we may read
_MAX_SUBJECT_CHARS = 1000  # of what has failed: the message has to fit into a packet
_MAX_INTERPRETER_BYTES = 256  # of a #! line, as many as the kernel looks at
_REPORT_BYTES = 16 * 1024
_READY = b"\n"  # in a report: all is prepared. Whoever ends before has been killed

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


class Launch:
    """The execution of the program of a job, whose record is `spec`, in a cgroup that is there, if any."""

    def __init__(self, directory: JobDir, spec: Record, cgroup: Cgroup | None) -> None:
        self._directory = directory
        self._cgroup = cgroup
        self._argv: list[str] = spec["job"]["spec"]["argv"]
        self._cwd: str = spec["job"]["spec"]["cwd"]
        self._launch: Record = spec["launch"]
        self._started = time_text(datetime.now(UTC))
        self._stage = "prepare"
        self._subject = ""

    def execute(self, outputs: tuple[int, int]) -> tuple[int, str]:
        """Execute the program, `outputs` being its stdout and stderr; its pid, and the time of the start.

        The limits of the cgroup are in force before, and the start is on record. Only from a single-threaded process.
        Raises `LaunchError`, after which no process is left, unless the kernel does not let go of it.
        """
        try:
            self._prepare(outputs)
            read_end, write_end = os.pipe2(os.O_CLOEXEC)
        except OSError as error:
            raise LaunchError(error.errno or errno.EIO, self._stage, self._subject) from None
        try:
            supervisor = os.getpid()
            pid, born_inside = _fork(self._cgroup)
            if pid == 0:
                self._become_job(outputs, write_end, supervisor, move=not born_inside)
            os.close(write_end)
            write_end = -1
            report = _read_report(read_end, pid)
        finally:
            os.close(read_end)
            if write_end >= 0:
                os.close(write_end)
        if report != _READY:
            os.waitpid(pid, 0)
            raise LaunchError(**json.loads(report)) if report else LaunchError(errno.EIO, "prepare")
        return pid, self._started

    def _prepare(self, outputs: tuple[int, int]) -> None:
        if self._cgroup is not None:
            for file, value in self._launch.get("limits", ()):
                self._at("limit", file)
                self._cgroup.write(file, value)
            self._at("prepare")
            # By whom its processes are found. Without a group, the process itself has to say who it is.
            self._record_start(None)
        if os.geteuid() == 0:
            for output in outputs:
                os.fchown(output, self._launch["uid"], -1)  # else the job may not open /dev/stdout

    def _record_start(self, identity: Record | None) -> None:
        """No process of a job is without a record by which it is found."""
        started = {"time": self._started, "process": identity}
        self._directory.write(jobdir.STARTED, started, sync=self._launch["sync"])

    # The child's part: it becomes the program, or reports what has failed and exits

    def _steps(self, outputs: tuple[int, int], report: int, supervisor: int, *, move: bool) -> list[Step]:
        """What the child does before it executes the program; made by itself, for what it touches goes with it."""
        steps: list[Step] = [("prepare", "", os.setsid, ())]
        if self._cgroup is None:
            steps.append(("prepare", "", self._record_child, ()))
        elif move:
            steps.append(("cgroup", "", self._cgroup.add, (0,)))
        steps += [("prepare", "", os.dup2, (output, target)) for target, output in enumerate(outputs, start=1)]
        steps += [("prepare", "", os.umask, (_UMASK,)), ("prepare", "", _take_usual_oom_score, ())]
        if os.geteuid() == 0:
            uid, gid = self._launch["uid"], self._launch["gid"]
            steps += [
                ("setuid", "", os.setgroups, (self._launch["groups"],)),
                ("setuid", "", os.setresgid, (gid, gid, gid)),
                ("setuid", "", os.setresuid, (uid, uid, uid)),
            ]
        steps += [
            ("setuid", "", syscalls.set_parent_death_signal, (signal.SIGKILL,)),  # credentials do not change any more
            ("setuid", "", _live_below, (supervisor,)),
            ("chdir", self._cwd, os.chdir, (self._cwd,)),
            ("exec", self._argv[0], syscalls.unblock_signals, ()),
            ("exec", self._argv[0], os.write, (report, _READY)),
        ]
        return steps

    def _record_child(self) -> None:
        self._record_start(process.identify(os.getpid())._asdict())

    def _become_job(self, outputs: tuple[int, int], report: int, supervisor: int, *, move: bool) -> NoReturn:
        stage, subject = "prepare", ""
        try:
            for stage, subject, call, arguments in self._steps(outputs, report, supervisor, move=move):  # noqa: B007 - for what has failed
                call(*arguments)
            error = self._execute()
            if not isinstance(error, PermissionError) and (interpreter := _interpreter_of(error.filename)):
                stage, subject = "interpreter", interpreter
            _fail(report, error.errno or errno.EIO, stage, subject)
        except OSError as error:
            _fail(report, error.errno or errno.EIO, stage, subject)
        except BaseException:  # noqa: BLE001 - nothing may return into the supervisor's code, so it is reported here
            _fail(report, errno.EINVAL, stage, subject)
        finally:
            os._exit(127)

    def _execute(self) -> OSError:
        """Execute the first file that may be meant and can be executed, as execvp(3); what says most why none is."""
        refused: OSError | None = None
        missing: OSError | None = None
        for path in _candidates(self._argv[0], self._launch["env"].get("PATH", "")):
            try:
                os.execve(path, self._argv, self._launch["env"])
            except (FileNotFoundError, NotADirectoryError) as error:
                if missing is None or os.path.exists(path):  # of a script that is there it is the interpreter
                    missing = error
            except PermissionError as error:
                refused = error
        return refused or missing or FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))

    def _at(self, stage: str, subject: str = "") -> None:
        self._stage = stage
        self._subject = subject


def _take_usual_oom_score() -> None:
    with suppress(PermissionError):  # it is above 0, and only root may lower it: not the supervisor's then
        sandbox.set_oom_score(0)


def _live_below(supervisor: int) -> None:
    """End if the supervisor died before it could be told of that."""
    if os.getppid() != supervisor:
        os._exit(127)


def _fail(report: int, number: int, stage: str, subject: str) -> None:
    failed = {"number": number, "stage": stage, "subject": subject[:_MAX_SUBJECT_CHARS]}
    with suppress(OSError):  # the supervisor has gone
        os.write(report, json.dumps(failed).encode())


# The supervisor's part


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


def _read_report(report: int, pid: int) -> bytes:
    """All that a child says until it executes the program, which closes its end, or ends.

    One that takes too long is killed and not waited for, since it may be in a call that nothing interrupts.
    """
    poller = select.poll()
    poller.register(report, 0)  # for the hang-up alone, before which there is nothing to do
    if poller.poll(START_PATIENCE * 1000):
        return os.read(report, _REPORT_BYTES)
    os.kill(pid, signal.SIGKILL)
    raise LaunchError(errno.ETIMEDOUT, "exec")


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
