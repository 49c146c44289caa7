"""The seekable format, against the library and the program that others read it with."""

from __future__ import annotations

import errno
import io
import random
import shutil
import subprocess

import pytest
import pyzstd

from jobworker.executors.seekable import FRAME_BYTES, SeekableReader, compressed

DICE = random.Random(1)  # noqa: S311 - the same bytes every time
CONTENT = DICE.randbytes(FRAME_BYTES + 5) + b"x" * (2 * FRAME_BYTES) + b"".join(b"line %d\n" % n for n in range(50_000))


class File:
    """Bytes that count how many of them are read."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.read_bytes = 0

    def read(self, position: int, size: int) -> bytes:
        """A part of it."""
        self.read_bytes += size
        return self.data[position : position + size]

    def open(self) -> SeekableReader:
        """A reader of the whole file."""
        return SeekableReader(self.read, len(self.data))


def packed(content: bytes) -> File:
    """A file with some content."""
    blocks = [content[start : start + FRAME_BYTES] for start in range(0, len(content), FRAME_BYTES)]
    return File(b"".join(compressed(blocks)))


def test_any_position_is_read() -> None:
    """What is read at a position is what was there, up to the end of a frame; behind the end there is nothing."""
    reader = packed(CONTENT).open()
    assert reader.size == len(CONTENT)
    for position in [0, FRAME_BYTES - 1, FRAME_BYTES, len(CONTENT) - 1, *DICE.choices(range(len(CONTENT)), k=50)]:
        data = reader.read(position, 1000)
        assert data
        assert CONTENT.startswith(data, position)
    assert reader.read(len(CONTENT), 1000) == b""
    assert packed(b"").open().size == 0


def test_a_read_costs_one_frame() -> None:
    """The first byte of a position costs its frame, the rest of the frame nothing."""
    file = packed(CONTENT)
    reader = file.open()
    opened = file.read_bytes
    assert opened < 200
    reader.read(10, 1)
    one = file.read_bytes - opened
    assert FRAME_BYTES < one < FRAME_BYTES + 1000  # it was random
    reader.read(20, 100_000)
    assert file.read_bytes - opened == one


def test_others_read_it_and_are_read() -> None:
    """It is the format that is called so: pyzstd reads what is written, at any position, and the other way round."""
    with pyzstd.SeekableZstdFile(io.BytesIO(packed(CONTENT).data)) as theirs:
        theirs.seek(2 * FRAME_BYTES + 7)
        assert theirs.read(100) == CONTENT[2 * FRAME_BYTES + 7 :][:100]
    buffer = io.BytesIO()
    with pyzstd.SeekableZstdFile(buffer, "w", max_frame_content_size=FRAME_BYTES) as writer:
        writer.write(CONTENT)
    reader = File(buffer.getvalue()).open()
    assert reader.size == len(CONTENT)
    assert CONTENT.startswith(reader.read(FRAME_BYTES + 3, 50), FRAME_BYTES + 3)


@pytest.mark.skipif(shutil.which("zstd") is None, reason="the program zstd is not installed")
def test_every_zstd_reads_it_whole() -> None:
    """Who has the file and zstd has the content."""
    done = subprocess.run(["zstd", "-d", "-c"], input=packed(CONTENT).data, stdout=subprocess.PIPE, check=True)
    assert done.stdout == CONTENT


def test_damage_is_told() -> None:
    """A file that was cut off or changed is an error, never wrong bytes."""
    data = packed(CONTENT).data
    for size in (0, 5, 9, len(data) - 1):
        with pytest.raises(OSError, match="damaged") as caught:
            File(data[:size]).open()
        assert caught.value.errno == errno.EIO
    for position in (0, 500, FRAME_BYTES + 2):
        reader = File(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]).open()
        with pytest.raises(OSError, match="damaged"):
            reader.read(0, 1)
