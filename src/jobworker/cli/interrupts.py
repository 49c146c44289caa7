"""What Ctrl-C means while a job runs there as if it ran here."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncGenerator, Awaitable
from contextlib import asynccontextmanager

from jobworker.cli import text
from jobworker.client import AsyncClient
from jobworker.core.errors import JobEndedError, JobworkerError

LEAVE = 3  # the press that leaves


class Interrupts:
    """The first Ctrl-C sends SIGINT to the job, the second stops it, the third leaves. Each says so on stderr.

    Leaving cancels the task that waits in `answered`, and then `left` is true.
    """

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self._count = 0
        self._presses: asyncio.Queue[None] = asyncio.Queue()
        self._job_id: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    @property
    def left(self) -> bool:
        """Whether it was pressed so often that nothing but leaving can be meant."""
        return self._count >= LEAVE

    def started(self, job_id: str) -> None:
        """The job that the presses are for; what was pressed before is now done."""
        self._job_id.set_result(job_id)

    @asynccontextmanager
    async def answered(self) -> AsyncGenerator[None]:
        """Answer presses while the block runs."""
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as of nohup and of background jobs: nobody presses
            yield
            return
        loop, block = asyncio.get_running_loop(), asyncio.current_task()

        def press() -> None:
            self._count += 1
            self._presses.put_nowait(None)
            if self.left and block is not None:
                block.cancel()

        loop.add_signal_handler(signal.SIGINT, press)
        try:
            async with asyncio.TaskGroup() as group:
                answering = group.create_task(self._answer())
                yield
                answering.cancel()
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None  # the block's; answering raises none
        finally:
            loop.remove_signal_handler(signal.SIGINT)

    async def _answer(self) -> None:
        await self._presses.get()
        job_id = await self._job_id
        text.say(f"sending SIGINT to job {job_id}; press Ctrl-C again to stop it")
        await self._attempt(self._client.signal(job_id, signal.SIGINT))
        await self._presses.get()
        text.say(f"stopping job {job_id} (SIGTERM, and a kill after 10 s); press Ctrl-C again to leave it")
        await self._attempt(self._client.stop(job_id))

    async def _attempt(self, request: Awaitable[object]) -> None:
        try:
            await request
        except JobEndedError:
            pass  # which is what was wanted; the end of the stream will tell
        except JobworkerError as error:
            text.say(str(error))
