"""Servers that are killed and followed by another, and jobs that go on when a test says so."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Self, TypedDict

from jobworker.client import AsyncClient
from tests.support.pki import Authority
from tests.support.server import Server, running_server

END_LIMIT = 30  # seconds; it takes milliseconds
ECHO = 'while read -r line; do echo "$line"; done <"$0"; exit 7'


class ClientArguments(TypedDict):
    """Those of an `AsyncClient`, with paths, so that they can be told to another process."""

    server: str
    ca: str
    cert: str
    key: str


class Machine:
    """Where servers come and go, one after the other, at the same address and with the same state.

    When it is left, the jobs are gone, whatever became of the servers.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.authority = Authority()
        self._port = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self.server(stop_jobs=True):
            pass

    @contextmanager
    def server(self, *flags: str, stop_jobs: bool = False) -> Generator[Server]:
        """The next server; see `running_server`."""
        flags = ("--listen", f"127.0.0.1:{self._port}", "--audit-log", "off", *flags)
        with running_server(self.directory, *flags, authority=self.authority, stop_jobs=stop_jobs) as server:
            self._port = server.port
            yield server

    @asynccontextmanager
    async def client(self, name: str = "alice") -> AsyncGenerator[AsyncClient]:
        """A client of whichever server is there."""
        async with AsyncClient(**self.client_arguments(name)) as client:
            yield client

    def client_arguments(self, name: str = "alice") -> ClientArguments:
        """What a client of whichever server is there is made with."""
        files = self.authority.client(name, roles="user").write(self.directory, name)
        return {
            "server": f"127.0.0.1:{self._port}",
            "ca": str(self.directory / "ca.crt"),
            "cert": str(files.certificate),
            "key": str(files.key),
        }


class Script:
    """The input of a job that repeats what it reads: it says what, and when, and when to end.

    `folder` has to be one that the user can enter whom jobs run as.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "script"
        os.mkfifo(self.path)
        self.path.chmod(0o644)
        self._fd = os.open(self.path, os.O_RDWR)  # both ends: opening waits for nobody

    @property
    def argv(self) -> list[str]:
        """The job; it exits with 7 at the end of the script."""
        return ["sh", "-c", ECHO, str(self.path)]

    def write(self, line: str) -> None:
        """Have the job write a line."""
        os.write(self._fd, f"{line}\n".encode())

    def end(self) -> None:
        """Have the job end, when it has read what was written."""
        os.close(self._fd)


def pid_of(name: str) -> int:
    """The pid of the one process whose name begins so, as the kernel shows it."""
    found = [int(path.parent.name) for path in Path("/proc").glob("[0-9]*/comm") if _comm(path).startswith(name)]
    assert len(found) == 1, f"{len(found)} processes are named {name}"
    return found[0]


def supervisor_of(job_id: str) -> int:
    """The pid of a job's supervisor."""
    return pid_of(f"jw-sup {job_id}"[:15])


def spawner_of(server: Server) -> int:
    """The pid of a server's spawner."""
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
    for pid in map(int, children):
        if _comm(Path(f"/proc/{pid}/comm")) == "jw-spawner":
            return pid
    raise AssertionError("the server has no spawner")


def kill(pid: int) -> None:
    """Kill a process, and wait until it has ended."""
    os.kill(pid, signal.SIGKILL)
    wait_for_end_of(pid)


def wait_for_end_of(pid: int) -> None:
    """Wait until a process that need not be a child of ours has ended."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        ended, _, _ = select.select([pidfd], [], [], END_LIMIT)
        assert ended, f"process {pid} does not end"
    finally:
        os.close(pidfd)


def processes_with(argument: str) -> list[int]:
    """Pids of the living processes that have this argument."""
    found: list[int] = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if argument.encode() in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
        except OSError:  # it has ended meanwhile
            continue
    return found


def _comm(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:  # it has ended meanwhile
        return ""
