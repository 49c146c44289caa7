"""A job's output in pieces: all of it, or a selection, from any offset on."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from jobworker.core.job import Job
from jobworker.core.output import Chunk, Gap, GapReason, OutputMode, Selection, Stream
from jobworker.executors.base import Output, Span
from jobworker.worker.live import LiveJob
from jobworker.worker.spans import BATCH, EPOCH, belongs, first_span, merged, nanoseconds
from jobworker.worker.tail import start_of_tail

Piece = Chunk | Gap


def is_indexed(job: Job, selection: Selection) -> bool:
    """Whether it takes the index of a job's output to tell what belongs to a selection and of which stream it is."""
    return not selection.raw or job.spec.output is OutputMode.SPLIT


def range_of(output: Output, job: Job) -> tuple[int, int]:
    """The offsets of the first byte that is kept and of the present end."""
    extent = output.extent()
    return extent.first, extent.end if job.end is None else job.end.output_bytes


async def pieces(output: Output, job: Job, selection: Selection, live: LiveJob | None) -> AsyncGenerator[Piece]:
    """What belongs to a selection, until the job of `live` has ended; without one, what there is.

    Where the offset is not the selection's own the first piece is empty and tells it. So does the last one where what
    comes last does not belong to it.
    """
    _, end = range_of(output, job)
    start = await _start(output, selection)
    if selection.tail is not None or selection.since is not None:
        yield Chunk(offset=start, data=b"")  # who is cut off before there is any output has to know where to go on
    if not is_indexed(job, selection):
        read = _all(output, start, end, live)
    else:
        if job.end is None:  # no more than is known of
            end = _indexed_end(output)
        read = Selected(output, selection, start, end, live).pieces()
    async for piece in read:
        yield piece


async def _start(output: Output, selection: Selection) -> int:
    """The offset at which a selection begins, but for the streams that it leaves out."""
    offset = selection.offset
    if selection.tail is not None:
        offset = await start_of_tail(output, selection, selection.tail)
    if selection.since is not None and (count := len(output.index)):
        since = nanoseconds(selection.since)
        number = first_span(output.index, lambda span: span.time >= since)
        (span,) = output.index.spans(min(number, count - 1), 1)
        offset = max(offset, span.offset if number < count else span.end)
    return offset


def _indexed_end(output: Output) -> int:
    """The offset up to which the index tells of an output."""
    count = len(output.index)
    return output.index.spans(count - 1, 1)[0].end if count else 0


async def _all(output: Output, offset: int, end: int, live: LiveJob | None) -> AsyncGenerator[Piece]:
    """The output from an offset on, until the job of `live` has ended; without one, up to `end`."""
    while True:
        # Asked before the read: what is read after the end is all there will ever be.
        end, final = _bound(end, live)
        piece = await output.read(offset, end, final=final)
        if piece is not None:
            yield piece
            offset = piece.end
        elif final:
            return
        else:
            await output.changed()


def _bound(end: int, live: LiveJob | None) -> tuple[int, bool]:
    """Where a stream ends, as far as that is known, and whether it is."""
    if live is None:
        return end, True
    if not live.ended.is_set():
        return sys.maxsize, False
    return live.job.output_bytes, True


class Selected:
    """As `_all`, by way of the index: pieces of one stream each, and only those that belong to a selection."""

    def __init__(self, output: Output, selection: Selection, offset: int, end: int, live: LiveJob | None) -> None:
        self._output = output
        self._selection = selection
        self._until = None if selection.until is None else nanoseconds(selection.until)
        self._offset = offset
        self._told = offset  # the end of the last piece
        self._end = end
        self._live = live
        self._over = False  # whether nothing that comes belongs to it

    async def pieces(self) -> AsyncGenerator[Piece]:
        """All of it."""
        index, final = self._output.index, False
        number = max(0, first_span(index, lambda span: span.end > self._offset) - 1)
        while not final and not self._over:
            self._end, final = _bound(self._end, self._live)
            now, size = nanoseconds(datetime.now(UTC)), self._output.extent().size
            spans = index.spans(number, BATCH)
            if (gap := self._trimmed()) is not None:
                yield gap
            for span in merged(spans, self._selection):
                async for piece in self._pieces_of(span):
                    yield piece
            number += max(0, len(spans) - 1)  # the last one may grow, as it may have before the first round
            if len(spans) == BATCH:
                final = False
                await asyncio.sleep(0)  # others have their turn
            elif not final and not self._over:
                await self._wait(now, known=self._offset >= size)
        if not self._over and (not self._selection.streams or Stream.COMBINED in self._selection.streams):
            async for piece in _all(self._output, self._offset, self._end, None):
                yield piece  # it has no record: nobody knows more of it
        elif (end := self._offset if self._over else max(self._offset, self._end)) > self._told:
            yield Chunk(offset=end, data=b"")

    def _trimmed(self) -> Gap | None:
        """What has made room, if it was not told: to be asked after a look at the index, which is trimmed later."""
        length = self._output.extent().first - self._offset
        if length <= 0:
            return None
        gap = Gap(offset=self._offset, length=length, reason=GapReason.TRIMMED)
        self._offset = self._told = gap.end
        return gap

    async def _pieces_of(self, span: Span) -> AsyncGenerator[Piece]:
        if self._until is not None and span.time >= self._until:
            self._over = True
        if self._over or self._offset >= (stop := min(span.end, self._end)):
            return
        if not belongs(span, self._selection):
            self._offset = stop
        while self._offset < stop and (piece := await self._output.read(self._offset, stop, final=True)) is not None:
            self._offset = self._told = piece.end
            yield self._of(span, piece)

    def _of(self, span: Span, piece: Piece) -> Piece:
        if isinstance(piece, Gap) or span.stream is None:
            return piece
        time = EPOCH + timedelta(microseconds=span.time // 1000) if self._selection.times else None
        return replace(piece, stream=span.stream, time=time)

    async def _wait(self, now: int, *, known: bool) -> None:
        """Wait until there may be more; `known` says that all which had come by `now` has been seen."""
        if self._until is not None and now >= self._until and known:
            self._over = True
            return
        seconds = None if self._until is None or now >= self._until else (self._until - now) / 1e9
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._output.changed()
