"""The daemon's handle on its spawner: it starts one, hands it requests, and replaces one that has died."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

import jobworker
from jobworker.runtime import protocol
from jobworker.runtime.spawner import REQUESTS

# Isolated and without site: nothing of the daemon's environment or of the user's site-packages is loaded. The folder
# of the package comes last in the path, so that nothing beside it can stand in for the standard library.
_FLAGS = ("-I", "-S", "-X", "utf8")
_CODE = "import sys; sys.path.append(sys.argv[1]); from jobworker.runtime.spawner import main; main(*sys.argv[2:])"
# Else each child looks up again what its parent has not called, and no child before it could leave it.
_ENVIRONMENT = {"LD_BIND_NOW": "1"}
_CLOSE_PATIENCE = 5.0  # seconds; it does nothing but exit, unless the machine is very busy


class Spawner:
    """The process that forks supervisors.

    Its standard error goes to `log`, which the supervisors inherit; `state` has the directories of jobs. `cgroup` is
    where jobs have theirs, if they have any, and `home` the group that the process has to be in, if it is not this
    one's; `have_home` sees to it that they are there. Jobs may open as many files as this process may now.
    """

    def __init__(
        self,
        log: Path,
        state: Path,
        cgroup: Path | None,
        home: Path | None = None,
        have_home: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._log = log
        self._have_home = have_home
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)  # for jobs, whatever this process takes for itself
        groups = ["" if group is None else str(group) for group in (cgroup, home)]
        self._arguments = [str(state), *groups, str(soft), str(hard)]
        self._socket: socket.socket | None = None
        self._pidfd = -1
        self._turn = asyncio.Lock()  # a socket has room for one who waits until it can be written
        self._room: asyncio.Future[None] | None = None
        self.pid = 0  # 0 while there is none
        self.kills = 0  # how many of its processes a signal has ended

    def start(self) -> socket.socket:
        """Start the process. Not by fork: this process may have threads. Raises `OSError`."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ExitStack() as undo, theirs:
            undo.callback(ours.close)
            log = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            undo.callback(os.close, log)
            self.pid = os.posix_spawn(
                sys.executable,
                [sys.executable, *_FLAGS, "-c", _CODE, str(Path(jobworker.__file__).parent.parent), *self._arguments],
                _ENVIRONMENT,
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, theirs.fileno(), REQUESTS),
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),  # which jobs have, too
                    (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                    (os.POSIX_SPAWN_DUP2, log, 2),
                ],
            )
            self._pidfd = os.pidfd_open(self.pid)  # if it fails, the process ends by itself: its socket is closed
            undo.pop_all()
            os.close(log)
        ours.setblocking(False)
        self._socket = ours
        asyncio.get_running_loop().add_reader(self._pidfd, self._reap)
        return ours

    async def request(self, request: protocol.Message, fds: Sequence[int]) -> None:
        """Hand over a request with its descriptors, to a new process if the old one has died."""
        packet = protocol.encode(request)
        async with self._turn:
            while True:
                if self._socket is None and self._have_home is not None:
                    await self._have_home()
                requests = self._socket or self.start()
                try:
                    socket.send_fds(requests, [packet], fds)
                except BlockingIOError:
                    await self._wait_for_room(requests)
                except (BrokenPipeError, ConnectionResetError):
                    self._reap()
                else:
                    return

    async def close(self) -> None:
        """Let the process end; supervisors live on."""
        if self._socket is None:
            return
        self._socket.close()
        loop = asyncio.get_running_loop()
        gone = asyncio.Event()
        loop.add_reader(self._pidfd, gone.set)
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_PATIENCE):
                await gone.wait()
        if not gone.is_set():
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        self._reap()

    def _reap(self) -> None:
        """Take the exit status of a process that has ended, or is about to, and forget it."""
        if self._socket is None:
            return
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._pidfd)
        if self._socket.fileno() >= 0:
            loop.remove_writer(self._socket)
        os.close(self._pidfd)
        _, status = os.waitpid(self.pid, 0)
        self.kills += os.WIFSIGNALED(status)
        self._socket.close()
        self._socket = None
        self.pid = 0
        self._let_go_on()

    async def _wait_for_room(self, requests: socket.socket) -> None:
        """Wait until a request can be sent, or until the process has ended."""
        loop = asyncio.get_running_loop()
        self._room = loop.create_future()
        loop.add_writer(requests, self._let_go_on)
        try:
            await self._room
        finally:
            if requests.fileno() >= 0:
                loop.remove_writer(requests)

    def _let_go_on(self) -> None:
        if self._room is not None and not self._room.done():
            self._room.set_result(None)
