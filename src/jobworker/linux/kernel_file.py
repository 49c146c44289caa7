"""The one door to the kernel's small files below /proc and /sys: whole reads, whole writes, no buffering in between."""

from __future__ import annotations

import os

_READ_BYTES = 64 * 1024


def read(path: str) -> bytes:
    """All of a file. Raises `OSError`."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        content = b""
        while piece := os.read(fd, _READ_BYTES):
            content += piece
        return content
    finally:
        os.close(fd)


def write(path: str, value: str) -> None:
    """Write a value in one piece. Raises `OSError` that says what was refused."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, value.encode())
        finally:
            os.close(fd)
    except OSError as error:
        raise OSError(error.errno, f"cannot write {value!r}: {error.strerror}", path) from None
