"""The spawner: a small, warm process that forks supervisors, because a daemon that has loaded gRPC must not fork.

It is started by posix_spawn, with its request socket as descriptor 3, and ends when the daemon closes the other end.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from typing import NoReturn

from jobworker.linux import sandbox, syscalls
from jobworker.runtime import burial, protocol, supervisor
from jobworker.runtime.jobdir import JobDir

REQUESTS = 3  # the descriptor of the request socket

Task = Callable[[JobDir, socket.socket], None]
TASKS: dict[str, tuple[Task, str]] = {
    "supervise": (supervisor.supervise, "jw-supervisor"),
    "bury": (burial.bury, "jw-burial"),
}


def main() -> None:
    """Serve the request socket until the daemon has gone."""
    os.closerange(REQUESTS + 1, os.sysconf("SC_OPEN_MAX"))  # whatever the daemon has left open
    os.set_inheritable(REQUESTS, False)
    os.umask(0o077)
    sandbox.default_signals()
    syscalls.set_process_name("jw-spawner")
    # Children that exit are nobody's concern here; the kernel reaps them at once.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    requests = socket.socket(fileno=REQUESTS)
    gc.disable()  # a collection in a child would touch, and so copy, every page that it shares with this process
    gc.collect()
    gc.freeze()
    while True:
        packet, fds, _flags, _peer = socket.recv_fds(requests, protocol.MAX_MESSAGE_BYTES, protocol.DESCRIPTORS)
        if not packet:
            return
        for fd in fds:  # a job would have them otherwise; recv_fds ignores MSG_CMSG_CLOEXEC up to Python 3.12
            os.set_inheritable(fd, False)
        task, name = TASKS[protocol.decode(packet)["op"]]
        try:
            child = os.fork()
        except OSError:  # no more processes for now; that the descriptors are closed tells who has asked
            traceback.print_exc()
            child = -1
        if child == 0:
            requests.close()
            _become(task, name, fds)
        for fd in fds:
            os.close(fd)


def _become(task: Task, name: str, fds: list[int]) -> NoReturn:
    """Do a task in a forked child and exit. `fds` are the job's directory, its lock and its control socket."""
    status = 1
    try:
        os.setsid()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        syscalls.set_process_name(name)
        directory, _lock, listener = fds
        task(JobDir(directory), socket.socket(fileno=listener))
        status = 0
    except BaseException:  # noqa: BLE001 - the end of the process: the log of the spawner is the place to say why
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(status)  # the lock goes with it, which tells everybody
