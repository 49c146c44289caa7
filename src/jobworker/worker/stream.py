"""A job's output in pieces, from any offset on."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass

from jobworker.executors.base import Output
from jobworker.worker.live import LiveJob

CHUNK_BYTES = 1024 * 1024  # large enough to be fast over TLS, small enough to hold one for each follower


@dataclass(frozen=True, kw_only=True, slots=True)
class Chunk:
    """Bytes of output, and the offset of the first one."""

    offset: int
    data: bytes


async def chunks(output: Output, offset: int, size: int, live: LiveJob | None) -> AsyncGenerator[Chunk]:
    """The output from an offset on, until the job of `live` has ended; without one, up to `size`."""
    while True:
        # Asked before the read: what is read after the end is all there will ever be.
        complete = live is None or live.ended.is_set()
        data = await output.read(offset, CHUNK_BYTES if live is not None else min(CHUNK_BYTES, size - offset))
        if data:
            yield Chunk(offset=offset, data=data)
            offset += len(data)
        elif complete:
            return
        else:
            await output.changed()
