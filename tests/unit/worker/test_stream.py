"""A stream by way of an index that grows, record by record."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from jobworker.core.job import Job
from jobworker.core.output import Chunk, OutputMode, Selection, Stream
from jobworker.core.spec import JobSpec
from jobworker.executors.growth import GrowthWatch
from jobworker.executors.output import FileOutput
from jobworker.runtime.index import KINDS, IndexWriter
from jobworker.runtime.jobdir import JobDir
from jobworker.worker.live import LiveJob
from jobworker.worker.stream import pieces
from jobworker.worker.tail import start_of_tail
from tests.unit.worker.place import Played

JOB = Job(id="x", owner="ada", spec=JobSpec(argv=("true",), output=OutputMode.SPLIT), create_time=datetime.now(UTC))


class Written:
    """An output that a test writes, and a reader of it."""

    def __init__(self, path: Path) -> None:
        self._directory = JobDir.create(path)
        self._fd = self._directory.create_output()
        self._index = IndexWriter(self._directory)
        self._growth = GrowthWatch()
        self.output = FileOutput(os.fsencode(path), self._growth, indexed=True)
        self.live = LiveJob(JOB, Played())

    def write(self, data: bytes, stream: Stream, *, at_once: bool = False) -> None:
        """Have some output arrive; `at_once`: in the same moment as what came last."""
        os.write(self._fd, data)
        self._index._time += 10**9 if at_once else 0  # pyright: ignore[reportPrivateUsage] - a clock that stands
        self._index.add(os.fstat(self._fd).st_size, KINDS.index(stream))

    def close(self) -> None:
        """Close everything."""
        self.output.close()
        self._growth.close()
        self._directory.close()
        os.close(self._fd)


@pytest.fixture
async def written(tmp_path: Path) -> AsyncGenerator[Written]:
    """One that is empty."""
    written = Written(tmp_path / "job")
    yield written
    written.close()


@pytest.mark.parametrize("offset", [0, 2])
async def test_a_record_that_grows_is_read_on(written: Written, offset: int) -> None:
    """What comes later in the same moment is of the same stream, for one who has read the record already, too."""
    written.write(b"ab", Stream.STDOUT)
    async with (
        asyncio.timeout(10),
        aclosing(pieces(written.output, JOB, Selection(offset=offset), written.live)) as read,
    ):
        if offset == 0:
            assert await anext(read) == Chunk(offset=0, data=b"ab", stream=Stream.STDOUT)
        waiting = asyncio.ensure_future(anext(read))
        await asyncio.sleep(0)  # one turn of the loop, so that it waits
        written.write(b"cd", Stream.STDOUT, at_once=True)
        written.write(b"ef", Stream.STDERR)
        assert len(written.output.index) == 2
        assert await waiting == Chunk(offset=2, data=b"cd", stream=Stream.STDOUT)
        assert await anext(read) == Chunk(offset=4, data=b"ef", stream=Stream.STDERR)


async def test_a_search_for_the_last_lines_lets_others_have_their_turn(
    written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long a line is: its blocks are read in threads, one after the other."""
    size = 4 * 1024 * 1024
    written.write(b"a\n" + bytes(size), Stream.STDOUT)
    readers: list[bool] = []
    pread = os.pread

    def read(fd: int, length: int, offset: int) -> bytes:
        if length > 4096:
            readers.append(threading.current_thread() is threading.main_thread())
        return pread(fd, length, offset)

    monkeypatch.setattr(os, "pread", read)
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)  # until the next turn of the loop

    other = asyncio.ensure_future(others())
    try:
        assert await start_of_tail(written.output, Selection(tail=1), 1) == 2
    finally:
        other.cancel()
    assert len(readers) >= 8
    assert turns >= len(readers)
    assert not any(readers)
