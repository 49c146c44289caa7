"""Where the last lines of an output begin."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from jobworker.core.output import Chunk, Selection
from jobworker.executors.base import Output
from jobworker.worker.spans import BATCH, belongs, first_span, merged, nanoseconds

_BLOCK_BYTES = 256 * 1024  # that are searched at once: enough for an output to read them in a thread


async def start_of_tail(output: Output, selection: Selection, lines: int) -> int:
    """The offset at which the last lines begin of what there is of a selection, found by reading backwards."""
    last = True  # whether nothing has been read yet: a newline at the very end begins no line
    start = output.extent().end
    async for begin, end in _ranges_backwards(output, selection):
        if last:
            start = end
        if not lines:
            return start
        for block in range(end, begin, -_BLOCK_BYTES):
            await asyncio.sleep(0)  # others have their turn, also where blocks are small
            data = await _kept(output, max(begin, block - _BLOCK_BYTES), block)
            position = len(data) - (last and data.endswith(b"\n"))
            last = last and not data
            while (position := data.rfind(b"\n", 0, position)) >= 0:
                lines -= 1
                if not lines:
                    return block - len(data) + position + 1
    return start if last else output.extent().first


async def _ranges_backwards(output: Output, selection: Selection) -> AsyncGenerator[tuple[int, int]]:
    """The offsets of what belongs to a selection, the last ones first."""
    index, kept = output.index, output.extent().first
    if not len(index):  # of a release that had none
        yield kept, output.extent().end
        return
    count = len(index)
    if selection.until is not None:
        until = nanoseconds(selection.until)
        count = first_span(index, lambda span: span.time >= until)
    for end in range(count, 0, -BATCH):
        first = max(0, end - BATCH)
        for span in reversed(list(merged(index.spans(first, end - first), selection))):
            if span.end <= kept:
                return
            if span.stream is not None and belongs(span, selection):
                yield max(span.offset, kept), span.end
        await asyncio.sleep(0)  # others have their turn


async def _kept(output: Output, offset: int, end: int) -> bytes:
    """The bytes up to `end`, from an offset or from the first one after it from which on all is kept."""
    data = b""
    while offset < end and (piece := await output.read(offset, end, final=True)) is not None:
        data = data + piece.data if isinstance(piece, Chunk) else b""
        offset = piece.end
    return data
