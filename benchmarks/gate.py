"""A job that waits until it is told to go on, so that those who follow it are there before it begins."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

READY = b"ready"  # the first line of such a job's output: who has read it follows the job


@dataclass(frozen=True, kw_only=True, slots=True)
class Gate:
    """A FIFO that a job reads from; `fd` is open for both ends, so that nobody's open has to wait."""

    path: Path
    fd: int

    def command(self, script: str) -> tuple[str, ...]:
        """A job that says that it is ready, waits here, and runs the script."""
        return ("sh", "-c", f'echo {READY.decode()}; read line <"$0"; {script}', str(self.path))

    def open(self) -> None:
        """Let one job pass."""
        os.write(self.fd, b"go\n")


@contextmanager
def closed_gate() -> Generator[Gate]:
    """A new one, in a folder that those can enter whom jobs run as."""
    with TemporaryDirectory(prefix="jobworker-bench-gate-") as folder:
        Path(folder).chmod(0o711)
        path = Path(folder, "gate")
        os.mkfifo(path)
        path.chmod(0o644)
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            yield Gate(path=path, fd=fd)
        finally:
            os.close(fd)
