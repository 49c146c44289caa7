"""Calls that stay open for as long as their callers like: counted by user, and watches ended when the server ends."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager

from jobworker.core.errors import QuotaExceededError, ServerUnavailableError
from jobworker.server.access import Hold


class HeldCalls:
    """The calls of all users that are held open."""

    def __init__(self, *, per_user: int) -> None:
        self._per_user = per_user
        self._open: Counter[tuple[str, Hold]] = Counter()
        self._watches: set[asyncio.Timeout] = set()
        self._ending = False

    @contextmanager
    def hold(self, user: str, kind: Hold) -> Generator[None]:
        """Count a call while the block runs. Raises `QuotaExceededError`."""
        if self._open[user, kind] >= self._per_user:
            raise QuotaExceededError(f"{kind} per user", self._per_user)
        self._open[user, kind] += 1
        try:
            yield
        finally:
            self._open[user, kind] -= 1
            if not self._open[user, kind]:
                del self._open[user, kind]

    @asynccontextmanager
    async def watch(self) -> AsyncGenerator[None]:
        """Run the block for as long as the server serves. Raises `ServerUnavailableError` when it ends."""
        if self._ending:
            raise _ending()
        limit = asyncio.timeout(None)
        try:
            async with limit:
                self._watches.add(limit)
                yield
        except TimeoutError:
            if not limit.expired():
                raise
            raise _ending() from None
        finally:
            self._watches.discard(limit)

    def end_watches(self) -> None:
        """End all watches and refuse new ones: their callers are told to come back."""
        self._ending = True
        for limit in self._watches:
            limit.reschedule(asyncio.get_running_loop().time())


def _ending() -> ServerUnavailableError:
    return ServerUnavailableError("the server is shutting down; running jobs go on, try again when it is back")
