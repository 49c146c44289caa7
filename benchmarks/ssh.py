"""OpenSSH over loopback, the peer that everybody has: a server of our own, each time with a new key of its own.

Nothing of the system's server or of the user's own settings is read or changed.
"""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.figures import Measured, latency

SHARED = "ssh through a ControlMaster"
NEW = "ssh on a new connection"
FIRST_BYTE = "first byte"
OUTPUT = "output"

_TIMES = {SHARED: 20, NEW: 3}
_HOSTS = {SHARED: "shared", NEW: "new"}
_PATIENCE = 30.0  # seconds until the server listens; about 0.02 on an idle machine
_PRIVILEGE_SEPARATION = Path("/run/sshd")  # root's sshd wants it; made by the system's service where that has run
_BUFFER_BYTES = 1024 * 1024

# The home is another one so that no shell loads what its user has set up there: that would be measured, too.
_SERVER = """\
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host
AuthorizedKeysFile {folder}/user.pub
PidFile none
StrictModes no
UsePAM no
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitUserRC no
SetEnv HOME={folder}
"""
_CLIENT = """\
Host shared
    ControlMaster auto
    ControlPath {folder}/control
    ControlPersist 10m
Host *
    HostName 127.0.0.1
    Port {port}
    User {user}
    IdentityFile {folder}/user
    IdentitiesOnly yes
    UserKnownHostsFile {folder}/known
    GlobalKnownHostsFile none
    StrictHostKeyChecking accept-new
    BatchMode yes
    LogLevel ERROR
"""


class NoSshError(Exception):
    """There can be no figures of OpenSSH; the text says why."""


@contextmanager
def running_sshd(folder: Path) -> Generator[Path]:
    """The configuration of a client whose hosts are `_HOSTS`, while there is a server. Raises `NoSshError`."""
    # sshd executes itself anew, so that it wants its whole path; /usr/sbin need not be in PATH.
    sshd = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if sshd is None or shutil.which("ssh") is None:
        raise NoSshError("openssh-server and openssh-client are not installed")
    if os.geteuid() == 0:
        _PRIVILEGE_SEPARATION.mkdir(mode=0o755, exist_ok=True)
    folder.mkdir()
    config = _configure(folder, port := _free_port())
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [sshd, "-D", "-e", "-f", folder / "sshd_config"], stdin=subprocess.DEVNULL, stderr=log
        )
    try:
        _wait_until_it_listens(server, port)
        if _run(config, NEW, "true", check=False).returncode != 0:
            raise NoSshError(f"OpenSSH lets nobody in here: {(folder / 'log').read_text().strip()}")
        yield config
    finally:
        if (folder / "control").exists():
            subprocess.run(["ssh", "-F", config, "-O", "exit", _HOSTS[SHARED]], check=False, capture_output=True)
        server.terminate()
        server.wait()


def measure(config: Path, *, output_bytes: int) -> Iterator[Measured]:
    """One round: a command to its end, its first byte, and how fast its output comes, in both ways to connect."""
    for way, times in _TIMES.items():
        _run(config, way, "true")
        yield from latency(way, [_command(config, way) for _ in range(times)])
        yield from latency(f"{way}: {FIRST_BYTE}", [_first_byte(config, way) for _ in range(times)])
        rate = output_bytes / _receive(config, way, output_bytes) / 1e6
        yield Measured(name=f"{way}: {OUTPUT}", value=rate, unit="MB/s")


def _configure(folder: Path, port: int) -> Path:
    for name in ("host", "user"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name]
        subprocess.run(command, check=True, capture_output=True)
    values = {"folder": folder, "port": port, "user": getpass.getuser()}
    (folder / "sshd_config").write_text(_SERVER.format(**values))
    (folder / "ssh_config").write_text(_CLIENT.format(**values))
    return folder / "ssh_config"


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def _wait_until_it_listens(server: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            if server.poll() is not None or time.monotonic() > deadline:
                raise NoSshError("sshd does not start here") from None
            time.sleep(0.02)  # it tells nobody when it listens
        else:
            return


def _argv(config: Path, way: str, *command: str) -> Sequence[str | Path]:
    return ["ssh", "-F", config, _HOSTS[way], *command]


def _run(config: Path, way: str, *command: str, check: bool = True) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        _argv(config, way, *command),
        check=check,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,  # no pipe: a ControlMaster that it leaves would keep that open
    )


def _command(config: Path, way: str) -> float:
    began = time.perf_counter()
    _run(config, way, "true")
    return time.perf_counter() - began


def _first_byte(config: Path, way: str) -> float:
    began = time.perf_counter()
    with subprocess.Popen(_argv(config, way, "echo", "x"), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.read(1)
        return time.perf_counter() - began


def _receive(config: Path, way: str, size: int) -> float:
    command = _argv(config, way, f"head -c {size} /dev/zero")
    received, buffer = 0, bytearray(_BUFFER_BYTES)
    began = time.perf_counter()
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, bufsize=0) as process:
        assert process.stdout is not None
        while count := os.readv(process.stdout.fileno(), [buffer]):
            received += count
    seconds = time.perf_counter() - began
    assert received == size
    return seconds
