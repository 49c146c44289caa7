"""A job's bytes are written whole to any kind of pipe, and nobody waits for a reader that does not read."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

DATA = bytes(range(256)) * 4096  # more than any pipe holds

BLOCKED = """
import asyncio
from jobworker.cli.raw_output import RawOutput

async def main():
    output = RawOutput()
    writing = asyncio.ensure_future(output.write(bytes(10_000_000)))
    await asyncio.sleep(0)  # one turn of the loop, so that it waits for the reader
    writing.cancel()

asyncio.run(main())
"""

WHOLE = """
import asyncio
from jobworker.cli.raw_output import RawOutput

async def main():
    await RawOutput().write(bytes(range(256)) * 4096)

asyncio.run(main())
"""


def test_a_pipe_that_does_not_block() -> None:
    """A pipe that another program has made non-blocking gets every byte, once its reader takes them."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    taken: list[bytes] = []

    def take() -> None:
        while piece := os.read(reader, 10_000):
            taken.append(piece)

    taking = threading.Thread(target=take)
    with subprocess.Popen([sys.executable, "-c", WHOLE], stdout=writer) as program:
        os.close(writer)
        taking.start()
        taking.join()
    assert program.returncode == 0
    os.close(reader)
    assert b"".join(taken) == DATA


def test_a_reader_that_does_not_read() -> None:
    """A program that is told to leave leaves, although its last write is blocked for ever."""
    reader, writer = os.pipe()
    try:
        done = subprocess.run([sys.executable, "-c", BLOCKED], stdout=writer, timeout=60, check=False)
    finally:
        os.close(reader)
        os.close(writer)
    assert done.returncode == 0
