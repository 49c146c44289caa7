"""A real `jobworker serve` process with certificates of this run, and clients of it."""

from __future__ import annotations

import os
import re
import secrets
import select
import socket
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
PROGRAM = Path(sys.executable).with_name("jobworker")

_START_LIMIT = 60.0  # seconds; about one on an idle machine
_END_LIMIT = 60.0
_ENOUGH = 4000
_READY = re.compile(r"^jobworker: serving on (\S+)$", re.MULTILINE)
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, kw_only=True, slots=True)
class Certificates:
    """What `jobworker pki` has put into a directory, for a server and for one user, an admin."""

    directory: Path

    @classmethod
    def make(cls, directory: Path) -> Certificates:
        """Make them."""
        for command in (
            ["init", "--host", "localhost", "--host", "127.0.0.1"],
            ["issue", "bench", "--role", "admin"],
        ):
            subprocess.run([PROGRAM, "pki", *command, "--dir", directory], check=True, capture_output=True)
        return cls(directory=directory)

    @property
    def ca(self) -> Path:
        """Of the authority of both."""
        return self.directory / "ca.crt"

    @property
    def server_cert(self) -> Path:
        """The server's."""
        return self.directory / "server.crt"

    @property
    def server_key(self) -> Path:
        """The server's."""
        return self.directory / "server.key"

    @property
    def user_cert(self) -> Path:
        """The user's."""
        return self.directory / "bench.crt"

    @property
    def user_key(self) -> Path:
        """The user's."""
        return self.directory / "bench.key"


@dataclass(frozen=True, kw_only=True, slots=True)
class Server:
    """A server that runs."""

    pid: int
    address: str
    certificates: Certificates

    @property
    def client_environ(self) -> dict[str, str]:
        """This process's environment with what the command line needs to reach the server."""
        return {
            **_environ(),
            "JOBWORKER_SERVER": self.address,
            "JOBWORKER_CA": str(self.certificates.ca),
            "JOBWORKER_CERT": str(self.certificates.user_cert),
            "JOBWORKER_KEY": str(self.certificates.user_key),
        }

    def resident_bytes(self) -> int:
        """Memory of the server's process, what it shares with others included."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * _PAGE_BYTES

    def cpu_seconds(self) -> float:
        """What the server's process has used so far."""
        user, system = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / _TICKS


@contextmanager
def running_server(directory: Path, certificates: Certificates, *flags: str) -> Generator[Server]:
    """A server on a free port of loopback that is gone, with its jobs, when the block ends."""
    directory.mkdir(exist_ok=True)
    log = directory / "log"
    settings: dict[str, str | Path] = {
        "--listen": "127.0.0.1:0",
        "--state-dir": directory / "state",
        "--server-cert": certificates.server_cert,
        "--server-key": certificates.server_key,
        "--client-ca": certificates.ca,
        "--audit-log": directory / "audit",
        "--max-running-jobs-per-user": str(_ENOUGH),  # all jobs and followers are one user's
        "--max-followers-per-user": str(_ENOUGH),
    }
    command = [PROGRAM, "serve", "--stop-jobs-on-exit", *(part for pair in settings.items() for part in pair), *flags]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as readiness, log.open("wb") as output:
        name = f"jobworker-bench-{secrets.token_hex(8)}"
        readiness.bind(f"\0{name}")
        process = subprocess.Popen(
            command, env={**_environ(), "NOTIFY_SOCKET": f"@{name}"}, stdout=output, stderr=output
        )
        try:
            _wait_until_ready(process, readiness, log)
            address = _READY.findall(log.read_text())[-1]
            yield Server(pid=process.pid, address=address, certificates=certificates)
            process.terminate()
            if process.wait(_END_LIMIT) != 0:
                raise RuntimeError(f"the server did not end well:\n{log.read_text()}")
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()


def _wait_until_ready(process: subprocess.Popen[bytes], readiness: socket.socket, log: Path) -> None:
    pidfd = os.pidfd_open(process.pid)
    try:
        ready, _, _ = select.select([readiness, pidfd], [], [], _START_LIMIT)
    finally:
        os.close(pidfd)
    if readiness not in ready:
        raise RuntimeError(f"the server did not start:\n{log.read_text()}")


def _environ() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("JOBWORKER_")}
