"""From a supervisor to a job's program: born in its cgroup, stripped of everything that is ours, executed."""

from __future__ import annotations

import errno
import os
import select
import signal
import struct
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NoReturn

from jobworker.linux import sandbox, syscalls
from jobworker.linux.cgroup import Cgroup

# Where clone3 cannot do it (an old kernel, a seccomp filter, an emulator), the child moves itself. Any other error is a
# real fault, such as EBUSY for a group that may hold no processes.
_NO_CLONE_INTO_CGROUP = frozenset({errno.ENOSYS, errno.EINVAL, errno.E2BIG, errno.EOPNOTSUPP, errno.EPERM, errno.EBADF})

_UMASK = 0o022  # as everywhere; the supervisor's own is for what only we may read

_STAGES = ("cgroup", "session", "setuid", "chdir", "exec")
_FAILURE = struct.Struct("=ii")  # errno, position in _STAGES


# Seconds that entering the working directory and executing the program may take. It is microseconds, unless they are on
# a file system that does not answer.
START_PATIENCE = 30.0


class LaunchError(Exception):
    """The program could not be executed: `errno` at `stage`."""

    def __init__(self, number: int, stage: str) -> None:
        super().__init__(f"{stage}: {os.strerror(number)}")
        self.errno = number
        self.stage = stage


@dataclass(frozen=True, kw_only=True, slots=True)
class Program:
    """What to execute and as whom."""

    argv: Sequence[str]
    env: dict[str, str]
    cwd: str
    identity: sandbox.Identity


def launch(program: Program, *, output: int, cgroup: Cgroup | None) -> int:
    """Execute a program with standard input from /dev/null and both outputs to `output`; return its pid.

    The process leads a session of its own. Only from a single-threaded process. Raises `LaunchError`, after which no
    process is left.
    """
    # All that can be done beforehand is done here: what the child touches it has to copy, page by page.
    argv = [os.fsencode(argument) for argument in program.argv]
    env = {os.fsencode(key): os.fsencode(value) for key, value in program.env.items()}
    paths = _candidates(argv[0], env.get(b"PATH", b""))
    supervisor = os.getpid()
    null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    report_read, report_write = os.pipe2(os.O_CLOEXEC)
    try:
        pid, born_inside = _fork(cgroup)
        if pid == 0:
            stage = 0
            try:
                if cgroup is not None and not born_inside:
                    cgroup.add(0)
                stage = 1
                os.setsid()
                for target, source in enumerate((null, output, output)):
                    os.dup2(source, target)
                os.umask(_UMASK)
                with suppress(PermissionError):  # it is above 0, and only root may lower it: not the supervisor's then
                    sandbox.set_oom_score(0)
                stage = 2
                sandbox.give_up_privileges(program.identity)
                syscalls.set_parent_death_signal(signal.SIGKILL)
                if os.getppid() != supervisor:  # it died before it could be told of
                    os._exit(127)
                stage = 3
                os.chdir(program.cwd)
                stage = 4
                sandbox.unblock_signals()
                _execute(paths, argv, env)
            except OSError as error:
                os.write(report_write, _FAILURE.pack(error.errno or errno.EIO, stage))
            except BaseException:  # noqa: BLE001 - nothing may return into the supervisor's code, so it is reported here
                os.write(report_write, _FAILURE.pack(errno.EINVAL, stage))
            finally:
                os._exit(127)
        os.close(report_write)
        report_write = -1
        report = _read_report(report_read, pid)
    finally:
        for fd in (null, report_read, report_write):
            if fd >= 0:
                os.close(fd)
    if report:
        os.waitpid(pid, 0)
        number, position = _FAILURE.unpack(report)
        raise LaunchError(number, _STAGES[int(position)])
    return pid


def _read_report(fd: int, pid: int) -> bytes:
    """What the child says has failed; nothing once it has executed the program. It is killed if it takes too long."""
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    if poller.poll(START_PATIENCE * 1000):
        return os.read(fd, _FAILURE.size)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    raise LaunchError(errno.ETIMEDOUT, "exec")


def _fork(cgroup: Cgroup | None) -> tuple[int, bool]:
    """Fork, if possible into the group; the pid (0 in the child) and whether the child was born in the group."""
    if cgroup is not None:
        fd = cgroup.open()
        try:
            return syscalls.clone_into_cgroup(fd), True
        except OSError as error:
            if error.errno not in _NO_CLONE_INTO_CGROUP:
                raise LaunchError(error.errno or errno.EIO, "cgroup") from None
        finally:
            os.close(fd)
    try:
        return os.fork(), False
    except OSError as error:
        raise LaunchError(error.errno or errno.EIO, "fork") from None


def _candidates(program: bytes, path: bytes) -> list[bytes]:
    """The files that may be meant by a program's name, in the order of PATH."""
    if b"/" in program:
        return [program]
    return [os.path.join(directory or b".", program) for directory in path.split(b":")]


def _execute(paths: list[bytes], argv: list[bytes], env: dict[bytes, bytes]) -> NoReturn:
    """Execute the first candidate that can be, as execvp(3) does; raise the error that says most."""
    refused: OSError | None = None
    missing: OSError | None = None
    for path in paths:
        try:
            os.execve(path, argv, env)
        except (FileNotFoundError, NotADirectoryError) as error:
            missing = error
        except PermissionError as error:
            refused = error
    raise refused or missing or FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
