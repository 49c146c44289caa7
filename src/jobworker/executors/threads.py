"""Threads for what may block: files, disks, the kernel's own files."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import ParamSpec, Self, TypeVar

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

COUNT = min(32, (os.cpu_count() or 1) + 4)  # as many as asyncio would have


class Threads:
    """A context manager. All threads are there from the start: who can have no more goes on to start and to end jobs.

    Raises `OSError` if they cannot be had.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=COUNT, thread_name_prefix="job-files")
        everybody = Barrier(COUNT)  # a thread that waits is not idle, so the pool starts another one
        try:
            for _ in range(COUNT):
                self._pool.submit(everybody.wait)
        except RuntimeError as error:
            everybody.abort()
            self._pool.shutdown(wait=False)
            raise OSError(errno.EAGAIN, str(error)) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=False)

    async def run(
        self, function: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Result:
        """Call a function in one of them."""
        return await asyncio.wrap_future(self._pool.submit(function, *args, **kwargs))


async def in_thread(function: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
    """Call a function in a thread of asyncio's, or here if there is none to be had: that others wait is better."""
    try:
        return await asyncio.to_thread(function, *args, **kwargs)
    except RuntimeError:
        return function(*args, **kwargs)
