"""Supervisors that stand by, so that a start finds made what takes long to make: processes, directory and cgroup."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager, suppress

from jobworker.executors.supervision import Supervision

COUNT = 4  # that stand by: each is a process of a megabyte
AT_ONCE = 1  # start that may be under way while one is made; with more the processors are better left to them
_RETRY = 1.0  # seconds until the next try to have one where there was no room for it
_END_PATIENCE = 5.0  # seconds; it kills a process and exits


class Standbys:
    """The supervisors that stand by, each for a job with an id of its own; they are replaced while there is time."""

    def __init__(self, make: Callable[[str], Awaitable[Supervision]], delete: Callable[[str], Awaitable[None]]) -> None:
        self._make = make
        self._delete = delete
        self._free: dict[str, Supervision] = {}
        self._promised: dict[str, Supervision] = {}
        self._starts = 0
        self._look = asyncio.Event()
        self._filling: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Have supervisors stand by from now on."""
        self._look.set()
        self._filling = asyncio.create_task(self._fill())

    async def close(self) -> None:
        """Let them end, and wait for it."""
        if self._filling is not None:
            self._filling.cancel()
            await asyncio.wait([self._filling])
        left = self._free | self._promised
        self._free.clear()
        self._promised.clear()
        # What cannot be deleted of one must not keep the others; the next daemon deletes it.
        await asyncio.gather(*(self._end(*standby) for standby in left.items()), return_exceptions=True)

    def new_id(self) -> str:
        """The id of a job for which a supervisor stands by, if there is one."""
        job_id = next((job_id for job_id, standby in self._free.items() if not standby.over.done()), None)
        if job_id is None:
            return str(uuid.uuid4())
        self._promised[job_id] = self._free.pop(job_id)
        return job_id

    def take(self, job_id: str) -> Supervision | None:
        """The one that stands by for a job, which is the caller's now."""
        return self._promised.pop(job_id, None)

    async def give_back(self, job_id: str) -> None:
        """Let the one end that stands by for a job that is not started after all, if there is one."""
        if (standby := self.take(job_id)) is not None:
            await self._end(job_id, standby)

    @contextmanager
    def start(self) -> Generator[None]:
        """Count a start that is under way meanwhile."""
        self._starts += 1
        try:
            yield
        finally:
            self._starts -= 1
            self._look.set()

    async def _fill(self) -> None:
        while True:
            await self._look.wait()
            self._look.clear()
            try:
                await self._end_dead()
                while self._starts <= AT_ONCE and len(self._free) < COUNT:
                    await self._add()
            except Exception:  # noqa: BLE001 - no room for one, most likely: starts go without, and say what is wrong
                await asyncio.sleep(_RETRY)
                self._look.set()

    async def _end(self, job_id: str, standby: Supervision) -> None:
        """Let one end, and leave nothing of it."""
        standby.let_go()
        with suppress(TimeoutError):
            async with asyncio.timeout(_END_PATIENCE):
                await standby.over
        standby.close()
        await self._delete(job_id)

    async def _end_dead(self) -> None:
        for job_id in [job_id for job_id, standby in self._free.items() if standby.over.done()]:
            await self._end(job_id, self._free.pop(job_id))

    async def _add(self) -> None:
        job_id = str(uuid.uuid4())
        try:
            self._free[job_id] = await self._make(job_id)
        except Exception:
            await self._delete(job_id)
            raise
