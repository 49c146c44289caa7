"""The Zstandard Seekable Format (0.1.0): frames that stand for themselves, and behind them a table of their sizes.

Every zstd reads it from its beginning; who looks into the table reads from any position, at the cost of one frame.
"""

from __future__ import annotations

import errno
import struct
import sys
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

FRAME_BYTES = 1024 * 1024  # of content: what is read for a single byte, and small enough to hold one for each reader

_SKIPPABLE = struct.Struct("<II")  # magic, size of what follows
_SKIPPABLE_MAGIC = 0x184D2A5E
_ENTRY = struct.Struct("<II")  # size of a frame, size of its content
_FOOTER = struct.Struct("<IBI")  # number of frames, flags, magic
_FOOTER_MAGIC = 0x8F92EAB1
_NO_FLAGS = 0  # the table has no checksums: the frames have
_MOST_FRAMES = 0x8000000


def compressed(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """The frames of blocks of content, which have at most `FRAME_BYTES` each, and then the table."""
    compressor = zstd.ZstdCompressor(options={zstd.CompressionParameter.checksum_flag: 1})
    entries: list[bytes] = []
    for block in blocks:
        frame = compressor.compress(block, compressor.FLUSH_FRAME)
        entries.append(_ENTRY.pack(len(frame), len(block)))
        yield frame
    footer = _FOOTER.pack(len(entries), _NO_FLAGS, _FOOTER_MAGIC)
    yield _SKIPPABLE.pack(_SKIPPABLE_MAGIC, len(entries) * _ENTRY.size + len(footer))
    yield b"".join(entries)
    yield footer


class SeekableReader:
    """The content of a file in this format, from any position on.

    `read(position, size)` reads the file, whose size is `size`. Raises what it raises, and `OSError` (EIO) for a file
    that is damaged or not in this format.
    """

    def __init__(self, read: Callable[[int, int], bytes], size: int) -> None:
        self._read = read
        entries = list(_ENTRY.iter_unpack(_table(read, size)))
        if any(content > FRAME_BYTES for _, content in entries):
            raise _damaged()
        self._frames = list(accumulate((frame for frame, _ in entries), initial=0))
        self._contents = list(accumulate((content for _, content in entries), initial=0))
        self._number = -1
        self._content = b""

    @property
    def size(self) -> int:
        """Bytes of content."""
        return self._contents[-1]

    def read(self, position: int, size: int) -> bytes:
        """Content from a position on: as much of `size` as is in the same frame, nothing at the end."""
        if position >= self.size:
            return b""
        number = bisect_right(self._contents, position) - 1
        if number != self._number:
            self._content = self._frame(number)
            self._number = number
        start = position - self._contents[number]
        return self._content[start : start + size]

    def _frame(self, number: int) -> bytes:
        begin, end = self._frames[number : number + 2]
        size = self._contents[number + 1] - self._contents[number]
        decompressor = zstd.ZstdDecompressor()
        try:
            content = decompressor.decompress(self._read(begin, end - begin), max_length=size + 1)
        except zstd.ZstdError as error:
            raise _damaged() from error
        if len(content) != size or not decompressor.eof:
            raise _damaged()
        return content


def _table(read: Callable[[int, int], bytes], size: int) -> bytes:
    """The entries of all frames."""
    footer = read(max(0, size - _FOOTER.size), _FOOTER.size)
    if len(footer) != _FOOTER.size:
        raise _damaged()
    count, flags, magic = _FOOTER.unpack(footer)
    length = count * _ENTRY.size
    start = size - _FOOTER.size - length - _SKIPPABLE.size
    if magic != _FOOTER_MAGIC or flags != _NO_FLAGS or count > _MOST_FRAMES or start < 0:
        raise _damaged()
    table = read(start, _SKIPPABLE.size + length)
    expected = _SKIPPABLE.pack(_SKIPPABLE_MAGIC, length + _FOOTER.size)
    if len(table) != len(expected) + length or not table.startswith(expected):
        raise _damaged()
    return table[len(expected) :]


def _damaged() -> OSError:
    return OSError(errno.EIO, "the compressed output is damaged")
