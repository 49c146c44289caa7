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
import socket
import struct
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
_DESCRIPTORS = struct.Struct("2i")  # of stdout and stderr

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


class FirstProcess:
    """The first process of a job, which has been forked before the job is known, and waits for it in the job's cgroup.

    It leads a session of its own. It ends when this process does, or closes the connection.
    """

    def __init__(self, pid: int, connection: socket.socket) -> None:
        self.pid = pid
        self.connection = connection

    @classmethod
    def fork(cls, directory: JobDir, cgroup: Cgroup | None) -> FirstProcess:
        """Have it wait. Only from a single-threaded process. Raises `LaunchError`."""
        supervisor = os.getpid()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            pid, born_inside = _fork(cgroup)
        except LaunchError:
            ours.close()
            theirs.close()
            raise
        if pid == 0:
            try:
                ours.close()
                Launch(directory, theirs).become_job(None if born_inside else cgroup, supervisor)
            finally:
                os._exit(127)
        theirs.close()
        return cls(pid, ours)

    def execute(self, outputs: tuple[int, int]) -> str:
        """Execute the program of the directory's spec, `outputs` being stdout and stderr; the time of the start.

        The process has recorded who it is. Raises `LaunchError`, after which no process is left, unless the kernel does
        not let go of it.
        """
        try:
            descriptors = _DESCRIPTORS.pack(*outputs)
            self.connection.sendmsg([b"execute"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)])
            started, failed = self._read_report()
        except ConnectionError:
            started = failed = b""
        finally:
            self.connection.close()
        if failed or not started:
            os.waitpid(self.pid, 0)
            raise LaunchError(**json.loads(failed)) if failed else LaunchError(errno.EIO, "prepare")
        return started.decode()

    def end(self) -> None:
        """Leave nothing of one that has not been told to execute anything."""
        if self.connection.fileno() >= 0:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self.connection.close()

    def _read_report(self) -> tuple[bytes, bytes]:
        """What the process says: when it was about to execute the program, and what has failed, if something has.

        The end of the report is that of its end of the connection, which executing the program closes. One that takes
        too long is killed and not waited for, since it may be in a call that nothing interrupts.
        """
        poller = select.poll()
        poller.register(self.connection, select.POLLIN)
        report = b""
        deadline = time.monotonic() + START_PATIENCE
        while poller.poll(max(0.0, deadline - time.monotonic()) * 1000):
            piece = self.connection.recv(_REPORT_BYTES)
            if not piece:
                started, _, failed = report.partition(b"\n")
                return started, failed
            report += piece
        os.kill(self.pid, signal.SIGKILL)
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

    def __init__(self, directory: JobDir, connection: socket.socket) -> None:
        self._directory = directory
        self._connection = connection
        self._stage = "prepare"
        self._subject = ""

    def become_job(self, cgroup: Cgroup | None, supervisor: int) -> None:
        """Prepare, wait for the word, and execute. `cgroup` is one to move into."""
        try:
            self._prepare(supervisor)
            _, outputs, _, _ = socket.recv_fds(self._connection, 16, 2)
            for output in outputs:
                os.set_inheritable(output, False)
            self._become_job(outputs, cgroup, supervisor)
        except OSError as error:
            self._fail(error.errno or errno.EIO)
        except BaseException:  # noqa: BLE001 - nothing may return into the supervisor's code, so it is reported here
            self._fail(errno.EINVAL)

    def _prepare(self, supervisor: int) -> None:
        """Do all that does not depend on the job."""
        _die_with(supervisor)
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.umask(_UMASK)
        with suppress(PermissionError):  # it is above 0, and only root may lower it: not the supervisor's then
            sandbox.set_oom_score(0)
        self._identity: Record = process.identify(os.getpid())._asdict()

    def _become_job(self, outputs: list[int], cgroup: Cgroup | None, supervisor: int) -> None:
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
        self._at("prepare")
        _take_streams(outputs, owner=launch_["uid"])
        self._record_start(sync=launch_["sync"])
        self._at("setuid")
        sandbox.give_up_privileges(sandbox.Identity(launch_["uid"], launch_["gid"], launch_["groups"]))
        _die_with(supervisor)
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
        started = time_text(datetime.now(UTC))
        self._directory.write(jobdir.STARTED, {"time": started, "process": self._identity}, sync=sync)
        self._connection.send(started.encode())

    def _at(self, stage: str, subject: str = "") -> None:
        self._stage = stage
        self._subject = subject

    def _fail(self, number: int) -> None:
        failed = {"number": number, "stage": self._stage, "subject": self._subject[:_MAX_SUBJECT_CHARS]}
        with suppress(OSError):  # the supervisor has gone
            self._connection.send(b"\n" + json.dumps(failed).encode())


def _die_with(supervisor: int) -> None:
    """Be killed when the supervisor dies, until the next change of credentials."""
    syscalls.set_parent_death_signal(signal.SIGKILL)
    if os.getppid() != supervisor:  # it died before it could be told of
        os._exit(127)


def _take_streams(outputs: list[int], *, owner: int) -> None:
    if os.geteuid() == 0:
        for output in outputs:
            os.fchown(output, owner, -1)  # else the job may not open /dev/stdout
    for target, source in enumerate(outputs, start=1):
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
