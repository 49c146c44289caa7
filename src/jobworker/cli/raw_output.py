"""Standard output, or another stream of ours, for a job's bytes."""

from __future__ import annotations

import asyncio
import os
import select
import sys
import threading
from contextlib import suppress
from queue import SimpleQueue
from typing import TextIO

from jobworker.cli import text
from jobworker.cli.exits import CliError

_Item = tuple[bytes, "asyncio.Future[None]"]


class RawOutput:
    """Writes bytes to standard output or another stream, and lets everything else go on while nobody reads them.

    A pipe or a terminal may block for ever. So it is a thread that writes, and a daemon thread, which does not keep the
    program from ending.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._descriptor = (stream or sys.stdout).fileno()
        self._loop = asyncio.get_running_loop()
        self._queue: SimpleQueue[_Item] = SimpleQueue()
        threading.Thread(target=self._work, daemon=True).start()

    async def write(self, data: bytes) -> None:
        """Write all of it. Raises `BrokenPipeError` when nobody will read it, and `CliError` for other failures."""
        done: asyncio.Future[None] = self._loop.create_future()
        self._queue.put((data, done))
        try:
            await done
        except BrokenPipeError:
            raise
        except OSError as error:
            raise CliError(f"cannot write the output: {error.strerror}") from None

    def _work(self) -> None:
        while True:
            data, done = self._queue.get()
            try:
                _write_all(self._descriptor, data)
                text.wrote(self._descriptor, data)
            except OSError as error:
                self._tell(done, error)
            else:
                self._tell(done, None)

    def _tell(self, done: asyncio.Future[None], error: OSError | None) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody wants to know any more
            self._loop.call_soon_threadsafe(_settle, done, error)


def _settle(done: asyncio.Future[None], error: OSError | None) -> None:
    if done.done():  # the writer has left
        return
    if error is None:
        done.set_result(None)
    else:
        done.set_exception(error)


def _write_all(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(descriptor, rest) :]
        except BlockingIOError:  # somebody who shares the terminal has made it non-blocking
            select.select([], [descriptor], [])
