"""The spawner: a small process that keeps supervisors ready, because a daemon that has loaded gRPC must not fork.

It is started by posix_spawn, with its request socket as descriptor 3, and ends when the daemon closes the other end,
or by SIGTERM, as its children do as long as they have no job.
A few forked children wait for requests on that same socket, and the kernel hands each request to one of them: so no
start has to wait for a fork. The spawner itself takes no request. It only sees that a child waits no more, since it has
become a supervisor or has died, and forks the next.
"""

from __future__ import annotations

import gc
import os
import resource
import select
import signal
import socket
import sys
from contextlib import suppress
from typing import NoReturn

from jobworker.linux import sandbox, syscalls
from jobworker.linux.cgroup import Cgroup
from jobworker.runtime import burial, children, protocol, supervisor
from jobworker.runtime.jobdir import JobDir
from jobworker.runtime.rehearsal import rehearse

REQUESTS = 3  # the descriptor of the request socket
WAITING = 4  # in a child: the write end of the pipe whose hang-up says that it waits no more
SPARE = 4  # children that wait for requests
FORK_RETRY = 0.1  # seconds between tries to fork when the system has no more processes to give


def main(state: str, cgroup: str, home: str, soft: str, hard: str) -> None:
    """Keep children ready until the daemon has gone.

    `state` has the directories of jobs; for `cgroup` (empty: none) see `rehearse`; `home` is the group to enter (empty:
    none); `soft` and `hard` limit the files that jobs may open.
    """
    if home:
        Cgroup(home).add(0)
    _close_from(REQUESTS + 1)  # whatever the daemon has left open
    os.set_inheritable(REQUESTS, False)
    resource.setrlimit(resource.RLIMIT_NOFILE, (int(soft), int(hard)))
    os.umask(0o077)
    sandbox.default_signals()
    sandbox.forbid_gains()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})  # here, so that no supervisor has to
    requests = socket.socket(fileno=REQUESTS)
    children.heed()
    fillers = rehearse(state, cgroup or None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {supervisor.END})  # what has no job ends with the scope that it is in
    syscalls.set_process_name("jw-spawner")  # not before: the rehearsal has names of its own
    _close_from(REQUESTS + 1)  # what the rehearsal has left
    gc.disable()  # a collection in a child would touch, and so copy, every page that it shares with this process
    gc.collect()
    gc.freeze()
    _keep_spares(requests, state)
    del fillers  # not before


def _close_from(lowest: int) -> None:
    os.closerange(lowest, os.sysconf("SC_OPEN_MAX"))


def _keep_spares(requests: socket.socket, state: str) -> None:
    """Have `SPARE` children wait. Each holds the write end of a pipe, whose hang-up says that it waits no more."""
    poller = select.poll()
    poller.register(REQUESTS, 0)  # for the hang-up alone
    exits = children.watch()
    poller.register(exits, select.POLLIN)
    spares: set[int] = set()
    while True:
        while len(spares) < SPARE and (spare := _fork_spare(requests, state)) is not None:
            spares.add(spare)
            poller.register(spare, 0)
        for fd, _ in poller.poll(None if len(spares) == SPARE else FORK_RETRY * 1000):
            if fd == REQUESTS:
                _let_end(spares)
                return
            if fd == exits:
                children.take_event(exits)
                _reap()
                continue
            poller.unregister(fd)
            spares.remove(fd)
            os.close(fd)


def _reap() -> None:
    """Take the exit statuses of supervisors, which nobody asks for."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _fork_spare(requests: socket.socket, state: str) -> int | None:
    """Fork a child that waits for a request; the descriptor that tells when it does not any more."""
    try:
        read_end, write_end = os.pipe2(os.O_CLOEXEC)
    except OSError:
        return None
    try:
        if os.fork() == 0:
            children.unwatch()
            os.dup2(write_end, WAITING, inheritable=False)
            _close_from(WAITING + 1)  # the other spares' pipes
            _serve(requests, state)
    except OSError:
        os.close(read_end)
        return None
    finally:
        os.close(write_end)
    return read_end


def _let_end(spares: set[int]) -> None:
    """Wait for the children that wait: the hang-up ends them, too."""
    for spare in spares:
        os.read(spare, 1)


def _serve(requests: socket.socket, state: str) -> NoReturn:
    """Wait for a request, do it, and exit."""
    status = 1
    try:
        os.setsid()
        syscalls.set_process_name("jw-spare")
        supervisor.prepare()
        received = protocol.receive(requests)
        requests.close()
        os.close(WAITING)
        if received is not None:
            _do(*received, state)
        status = 0
    except BaseException as error:  # noqa: BLE001 - the end of the process: the log of the spawner is the place to say why
        sys.excepthook(type(error), error, error.__traceback__)
        sys.stderr.flush()
    finally:
        os._exit(status)  # the lock goes with it, which tells everybody


def _do(request: protocol.Message, files: list[int], state: str) -> None:
    if request["op"] == "supervise":
        [connection] = files
        supervisor.supervise(socket.socket(fileno=connection), state)
    else:
        directory, _lock, listener = files
        syscalls.set_process_name("jw-burial")
        burial.bury(JobDir(directory), socket.socket(fileno=listener))
