"""The threads of an executor: there from the start, and not the event loop's."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest

from jobworker.core.usage import Usage
from jobworker.executors.base import Execution
from jobworker.executors.local import LocalExecutor, LocalSettings
from jobworker.executors.threads import COUNT, Threads


async def test_all_threads_are_there_from_the_start() -> None:
    """So nothing that is done in them later can fail for want of one."""
    before = set(threading.enumerate())
    with Threads() as threads:
        theirs = set(threading.enumerate()) - before
        assert len(theirs) == COUNT
        assert set(await asyncio.gather(*(threads.run(threading.current_thread) for _ in range(3 * COUNT)))) <= theirs


def test_threads_that_cannot_be_had_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """At once, and those that there were end."""
    before, start, left = set(threading.enumerate()), threading.Thread.start, iter(range(COUNT - 1))

    def refuse(thread: threading.Thread) -> None:
        if next(left, None) is None:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(BlockingIOError, match="can't start new thread"):
        Threads()
    for thread in set(threading.enumerate()) - before:
        thread.join(10)
        assert not thread.is_alive()


@dataclass
class Slow:
    """A job whose usage comes when the event loop says so, which it cannot while it waits itself."""

    may: threading.Event
    seen: list[int]

    def usage(self) -> Usage | None:
        """Wait, and keep which thread has waited."""
        assert self.may.wait(10), "the loop waits for this"
        self.seen.append(threading.get_ident())
        return None


async def test_usage_is_read_beside_the_event_loop(tmp_path: Path) -> None:
    """That of many jobs in one go."""
    may, seen = threading.Event(), list[int]()
    async with LocalExecutor.open(LocalSettings(directory=tmp_path, cgroups="off")) as executor:
        reading = asyncio.ensure_future(executor.usages(cast("Sequence[Execution]", [Slow(may, seen)] * 50)))
        await asyncio.sleep(0)  # one turn of the loop, so that it has begun
        may.set()
        assert await reading == [None] * 50
    assert len(set(seen)) == 1
    assert seen[0] != threading.get_ident()
