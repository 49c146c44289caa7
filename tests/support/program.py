"""The program `jobworker` as its users call it, with a certificate of theirs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.pki import Credential
from tests.support.server import Server, base_environ

JOBWORKER = str(Path(sys.executable).with_name("jobworker"))
LIMIT = 60.0  # seconds a command; none takes that long unless it hangs


@dataclass(frozen=True, kw_only=True, slots=True)
class Finished:
    """A command that has ended."""

    code: int
    stdout: bytes
    stderr: str

    @property
    def text(self) -> str:
        """What it printed."""
        return self.stdout.decode()

    @property
    def json(self) -> Any:  # noqa: ANN401 -- whatever JSON it is
        """What it printed, read as JSON."""
        return json.loads(self.stdout)

    @property
    def complaint(self) -> str:
        """The one line on stderr, without the program's name. More or fewer lines fail the test."""
        (line,) = self.stderr.splitlines()
        assert line.startswith("jobworker: ")
        return line.removeprefix("jobworker: ")


class Background:
    """A command that runs."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def read(self, count: int) -> bytes:
        """The next bytes of its output."""
        assert self._process.stdout is not None
        return self._process.stdout.read(count)

    def line(self) -> str:
        """The next line of its output."""
        assert self._process.stdout is not None
        return self._process.stdout.readline().decode()

    def read_until(self, expected: str) -> None:
        """Read lines of its output up to this one."""
        while (found := self.line()) != expected:
            assert found, f"the output ended before {expected!r}"

    def complaint(self) -> str:
        """The next line on stderr, without the program's name."""
        assert self._process.stderr is not None
        line = self._process.stderr.readline().decode()
        assert line.startswith("jobworker: "), line
        return line.removeprefix("jobworker: ").removesuffix("\n")

    def error_line(self) -> str:
        """The next line on stderr."""
        assert self._process.stderr is not None
        return self._process.stderr.readline().decode()

    def close_output(self) -> None:
        """Be a reader that goes away."""
        assert self._process.stdout is not None
        self._process.stdout.close()

    def press_ctrl_c(self) -> None:
        """Send it SIGINT, as a terminal does."""
        self._process.send_signal(signal.SIGINT)

    def end(self) -> Finished:
        """Wait for its end. Returns what it has written since the last read."""
        stderr = self._process.stderr
        assert stderr is not None
        stdout = self._process.stdout
        rest = b"" if stdout is None or stdout.closed else stdout.read()
        complaints = stderr.read().decode()
        return Finished(code=self._process.wait(LIMIT), stdout=rest, stderr=complaints)


@dataclass(frozen=True, kw_only=True, slots=True)
class Program:
    """`jobworker` with this environment."""

    environ: dict[str, str]

    def __call__(self, *words: str | Path, code: int | None = 0) -> Finished:
        """Run it. Fails the test if it does not exit with `code`."""
        done = subprocess.run(
            [JOBWORKER, *map(str, words)],
            env=self.environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=LIMIT,
            check=False,
        )
        finished = Finished(code=done.returncode, stdout=done.stdout, stderr=done.stderr.decode())
        assert code is None or finished.code == code, finished
        return finished

    @contextmanager
    def begin(self, *words: str, stdout: int = subprocess.PIPE) -> Generator[Background]:
        """Start it; it is killed at the end of the block if it has not ended by then."""
        process = subprocess.Popen(
            [JOBWORKER, *words], env=self.environ, stdin=subprocess.DEVNULL, stdout=stdout, stderr=subprocess.PIPE
        )
        try:
            yield Background(process)
        finally:
            process.kill()
            process.communicate()

    def start(self, *command: str) -> str:
        """Start a job. Returns its id."""
        return self("start", "--", *command).text.strip()


def program_of(server: Server, name: str, credential: Credential | None = None) -> Program:
    """The program of a user of this server, who is not an admin unless the credential says so."""
    files = (credential or server.client(name)).write(server.directory, f"client-{name}")
    return Program(
        environ={
            **base_environ(),
            "JOBWORKER_SERVER": server.address,
            "JOBWORKER_CA": str(server.ca),
            "JOBWORKER_CERT": str(files.certificate),
            "JOBWORKER_KEY": str(files.key),
            "JOBWORKER_CONFIG_DIR": os.devnull,  # nobody's profiles
        }
    )
