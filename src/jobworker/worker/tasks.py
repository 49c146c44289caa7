"""What a worker has under way: starts, which outlive their callers, and watches over jobs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, Self

from jobworker.core.job import Job

Arguments = ParamSpec("Arguments")

# Seconds that starts may take to come to their end when the worker is left; they take milliseconds, unless they hang on
# a file system that does not answer.
LEAVE_PATIENCE = 10.0


class Tasks:
    """An async context manager. When it is left, starts come to their end first, for each may begin a watch."""

    def __init__(self) -> None:
        self._group = asyncio.TaskGroup()
        self._starts: set[asyncio.Task[None]] = set()
        self._watches: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.starts_ended()
        for task in (*self._starts, *self._watches):
            task.cancel()
        # Not with the error of the block, which would make the group cancel what is left without an order.
        await self._group.__aexit__(None, None, None)

    def start(
        self, work: Callable[Arguments, Coroutine[Any, Any, Job]], *arguments: Arguments.args, **more: Arguments.kwargs
    ) -> asyncio.Future[Job]:
        """Have a job started even if nobody waits for it any more; an error is for whoever waits."""
        result: asyncio.Future[Job] = asyncio.get_running_loop().create_future()
        result.add_done_callback(lambda done: done.cancelled() or done.exception())  # else asyncio logs it as forgotten

        async def run() -> None:
            try:
                result.set_result(await work(*arguments, **more))
            except asyncio.CancelledError:
                result.cancel()
                raise
            except Exception as error:  # noqa: BLE001 - handed on
                result.set_exception(error)

        self._keep(self._starts, run())
        return result

    def watch(
        self, work: Callable[Arguments, Coroutine[Any, Any, None]], *arguments: Arguments.args, **more: Arguments.kwargs
    ) -> None:
        """Have something watched until it is done or the worker is left. A fault in it ends it, and nothing else."""

        async def run() -> None:
            try:
                await work(*arguments, **more)
            except Exception as error:  # noqa: BLE001 - told by asyncio's handler; the jobs of others go on
                asyncio.get_running_loop().call_exception_handler({"message": "a watch has failed", "exception": error})

        self._keep(self._watches, run())

    async def starts_ended(self) -> None:
        """Wait until no start is under way, or until that has taken too long."""
        if self._starts:
            await asyncio.wait(self._starts, timeout=LEAVE_PATIENCE)

    def _keep(self, tasks: set[asyncio.Task[None]], work: Coroutine[Any, Any, None]) -> None:
        task = self._group.create_task(work)
        tasks.add(task)
        task.add_done_callback(tasks.discard)
