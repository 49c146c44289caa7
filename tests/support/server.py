"""A real `jobworker serve` process, with certificates of its own."""

from __future__ import annotations

import os
import re
import secrets
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import grpc

from tests.support.pki import Authority, Credential, CredentialFiles

START_LIMIT = 60.0  # seconds; about one on an idle machine
END_LIMIT = 60.0  # seconds; with --stop-jobs-on-exit, jobs get 10 s to end
PROGRAM = str(Path(sys.executable).with_name("jobworker"))

Settings = dict[str, Any]  # flags of `serve` without the dashes

_READY = re.compile(r"^jobworker: serving on (\S+):(\d+)$", re.MULTILINE)


@dataclass(kw_only=True)
class Server:
    """A server that runs in `directory`. Its state and its log outlive it, so that another can follow."""

    directory: Path
    authority: Authority
    files: CredentialFiles
    process: subprocess.Popen[bytes]
    host: str = ""
    port: int = 0
    exit_code: int | None = None
    clients: dict[str, Credential] = field(default_factory=dict[str, Credential])

    @property
    def address(self) -> str:
        """Host and port, as clients write them."""
        return f"{self.host}:{self.port}"

    @property
    def state_dir(self) -> Path:
        """Where the jobs are."""
        return self.directory / "state"

    @property
    def ca(self) -> Path:
        """The file of the CA that issued the server's certificate, and that of the clients."""
        return self.directory / "ca.crt"

    @property
    def log(self) -> str:
        """All that the server, and those before it in the same directory, have said."""
        return (self.directory / "log").read_text()

    def client(self, name: str, roles: str | None = "user") -> Credential:
        """A client certificate, made when it is first asked for."""
        if name not in self.clients:
            self.clients[name] = self.authority.client(name, roles=roles)
        return self.clients[name]

    def channel(self, credential: Credential | None, *options: tuple[str, int]) -> grpc.Channel:
        """A connection with a client certificate, or without one."""
        return grpc.secure_channel(self.address, self.channel_credentials(credential), options=options)

    def channel_credentials(self, credential: Credential | None) -> grpc.ChannelCredentials:
        """What gRPC needs to connect."""
        ca = self.ca.read_bytes()
        if credential is None:
            return grpc.ssl_channel_credentials(ca)
        return grpc.ssl_channel_credentials(ca, credential.key, credential.certificate)

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Signal the server and wait for its end. Returns its exit status."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        """Wait for the server's end. Returns its exit status."""
        self.exit_code = self.process.wait(END_LIMIT)
        return self.exit_code


@contextmanager
def running_server(  # noqa: PLR0913 -- what tests vary, all but the folder by keyword
    directory: Path,
    *flags: str,
    authority: Authority | None = None,
    ca: bytes | None = None,
    certificate: Credential | None = None,
    environ: Mapping[str, str] | None = None,
    stop_jobs: bool = True,
) -> Generator[Server]:
    """A server on a free port of loopback, ready when the block begins and gone when it ends.

    `authority` issues its certificate, unless one is given, and those of its clients, unless `ca` does. Jobs go with
    the server unless `stop_jobs` is false. A server that does not exit with 0, or that shows a stack trace,
    fails the test; if the test has ended the server itself, its exit status is the test's to judge.
    """
    authority = authority or Authority()
    (directory / "ca.crt").write_bytes(ca or authority.certificate)
    files = (certificate or authority.server()).write(directory, "server")
    command = serve_command(directory, *(["--stop-jobs-on-exit"] if stop_jobs else []), *flags)
    with _Readiness() as readiness, (directory / "log").open("ab") as log:
        process = subprocess.Popen(
            command,
            env={**base_environ(), **(environ or {}), "NOTIFY_SOCKET": readiness.address},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        server = Server(directory=directory, authority=authority, files=files, process=process)
        try:
            readiness.wait_for(server)
            server.host, port = _READY.findall(server.log)[-1]
            server.port = int(port)
            yield server
            if server.exit_code is None:
                assert server.end() == 0, "the server did not end well"
            assert "Traceback" not in server.log
        except BaseException:
            print(f"--- log of the server in {directory}\n{server.log}", file=sys.stderr)  # noqa: T201 -- pytest shows it with a failure
            raise
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()


def serve_command(directory: Path, *flags: str) -> list[str]:
    """The command of a server on a free port, with the files that `running_server` writes."""
    settings = {
        "--listen": "127.0.0.1:0",
        "--state-dir": directory / "state",
        "--server-cert": directory / "server.crt",
        "--server-key": directory / "server.key",
        "--client-ca": directory / "ca.crt",
    }
    return [PROGRAM, "serve", *(str(part) for pair in settings.items() for part in pair), *flags]


def words_of(settings: Settings) -> list[str]:
    """Settings as a command line."""
    return [f"--{name}={value}" for name, value in settings.items()]


def serve_starts(settings: Settings, *before: str) -> bool:
    """Whether a server with these settings comes to serve; it is ended then. `before` stands before the command."""
    command = [*before, PROGRAM, "serve", *words_of(settings)]
    with subprocess.Popen(command, env=base_environ(), stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        started = any(line.startswith("jobworker: serving on") for line in server.stderr)
        server.terminate()
        server.stderr.read()
    return started


def base_environ() -> dict[str, str]:
    """The environment of this process without any settings of jobworker."""
    return {name: value for name, value in os.environ.items() if not name.startswith("JOBWORKER_")}


class _Readiness:
    """Waits for what systemd would be told."""

    def __init__(self) -> None:
        self._name = f"jobworker-test-{secrets.token_hex(8)}"
        self.address = f"@{self._name}"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)

    def __enter__(self) -> Self:
        self._socket.bind(f"\0{self._name}")
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def wait_for(self, server: Server) -> None:
        """Return when the server is ready. A server that ends or takes too long fails the test."""
        pidfd = os.pidfd_open(server.process.pid)
        try:
            ready, _, _ = select.select([self._socket, pidfd], [], [], START_LIMIT)
        finally:
            os.close(pidfd)
        assert ready, "the server is not ready in time"
        assert self._socket in ready, f"the server ended instead of starting, with {server.wait()}"
        assert self._socket.recv(100) == b"READY=1"
