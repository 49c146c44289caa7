"""What this machine can do at best: the limits that everything else is held against."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import tls
from benchmarks.figures import Measured, latency
from benchmarks.server import ROOT, Certificates

SPAWN = "spawn and wait"
FIRST_BYTE = "spawn to first byte"
RECORD = "record made durable"
SPLICE = "pipe spliced into a file"
WRITE = "file written, page cache"
TLS = "TLS 1.3, 64 KiB writes"
TLS_SMALL = "TLS 1.3, 1 KiB writes"

_TIMES = 100
_RECORD_BYTES = 1000  # about as long as those of a job
_PIPE_BYTES = 1024 * 1024
_WRITE_BYTES = 1024 * 1024
# Bytes in all and at a time.
_TLS_SIZES = {TLS: (256 * 1024**2, 64 * 1024), TLS_SMALL: (64 * 1024**2, 1024)}


def measure(folder: Path, certificates: Certificates, *, output_bytes: int) -> Iterator[Measured]:
    """One round, in an empty folder on the disk that the server uses."""
    yield from latency(SPAWN, [_spawn_and_wait() for _ in range(_TIMES)])
    yield from latency(FIRST_BYTE, [_spawn_to_first_byte() for _ in range(_TIMES)])
    yield from latency(RECORD, [_write_record(folder, str(number)) for number in range(_TIMES)])
    yield Measured(name=SPLICE, value=output_bytes / _splice(folder, output_bytes) / 1e6, unit="MB/s")
    yield Measured(name=WRITE, value=output_bytes / _write(folder, output_bytes) / 1e6, unit="MB/s")
    for name, (size, write_bytes) in _TLS_SIZES.items():
        seconds = _send_by_tls(certificates, size, write_bytes)
        yield Measured(name=name, value=size / seconds / 1e6, unit="MB/s")


def _spawn_and_wait() -> float:
    began = time.perf_counter()
    os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)
    return time.perf_counter() - began


def _spawn_to_first_byte() -> float:
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    began = time.perf_counter()
    pid = os.posix_spawn("/bin/echo", ["echo", "x"], {}, file_actions=[(os.POSIX_SPAWN_DUP2, write_end, 1)])
    os.close(write_end)
    os.read(read_end, 1)
    seconds = time.perf_counter() - began
    os.close(read_end)
    os.waitpid(pid, 0)
    return seconds


def _write_record(folder: Path, name: str) -> float:
    """A small file that appears whole or not at all, and survives a power cut but for its name."""
    began = time.perf_counter()
    fd = os.open(folder / "record.new", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC)
    os.write(fd, b"x" * _RECORD_BYTES)
    os.fsync(fd)
    os.close(fd)
    (folder / "record.new").rename(folder / name)
    return time.perf_counter() - began


def _splice(folder: Path, size: int) -> float:
    """What a process writes, moved into a file by the kernel: as much work as keeping a job's output can be."""
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    fcntl.fcntl(read_end, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    file = os.open(folder / "spliced", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC)
    began = time.perf_counter()
    with subprocess.Popen(["head", "-c", str(size), "/dev/zero"], stdout=write_end):
        os.close(write_end)
        while os.splice(read_end, file, _PIPE_BYTES):
            pass
        seconds = time.perf_counter() - began
    os.close(read_end)
    os.close(file)
    (folder / "spliced").unlink()
    return seconds


def _write(folder: Path, size: int) -> float:
    """What this process has, copied into a file by the kernel, which puts it on the disk some time later."""
    data = bytes(_WRITE_BYTES)
    file = os.open(folder / "written", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC)
    began = time.perf_counter()
    for _ in range(size // _WRITE_BYTES):
        os.write(file, data)
    seconds = time.perf_counter() - began
    os.close(file)
    (folder / "written").unlink()
    return seconds


def _send_by_tls(certificates: Certificates, size: int, write_bytes: int) -> float:
    """From another process to this one, over loopback."""
    with _sender(certificates, size, write_bytes) as port:
        return tls.receive(port, certificates, size)


@contextmanager
def _sender(certificates: Certificates, size: int, write_bytes: int) -> Generator[int]:
    command = [sys.executable, "-m", tls.__name__, str(certificates.directory), str(size), str(write_bytes)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline())
        except BaseException:
            process.kill()
            raise
