"""Files that grow and give back their beginning, in both forms, for those who read them meanwhile."""

from __future__ import annotations

import os
import random
from collections.abc import Generator
from pathlib import Path

import pytest

from jobworker.executors.files import OneFile, SegmentFiles, open_file
from jobworker.runtime.segments import HoledFile, Segments, delete, size_of

DICE = random.Random(3)  # noqa: S311 - the same course every time
BLOCK = 4096


@pytest.fixture
def folder(tmp_path: Path) -> Generator[int]:
    """A descriptor of an empty folder."""
    fd = os.open(tmp_path, os.O_RDONLY)
    yield fd
    os.close(fd)


def test_segments_are_read_as_one_file_with_holes(folder: int) -> None:
    """From any offset, in any length, whatever is missing and has been given back; as far as a reader has looked."""
    one = HoledFile(os.open("one", os.O_RDWR | os.O_CREAT, dir_fd=folder), BLOCK)
    segments = Segments("segments", BLOCK, dir_fd=folder)
    whole, parts = open_file("one", dir_fd=folder), open_file("segments", dir_fd=folder)
    assert isinstance(whole, OneFile)
    assert isinstance(parts, SegmentFiles)
    size = first = 0
    for _ in range(400):
        length = DICE.randrange(1, 3000)
        if DICE.random() < 0.8:
            data = DICE.randbytes(length)
            for file in (one, segments):
                assert os.pwrite(file.at(size), data, size) == length
        size += length
        if DICE.random() < 0.2:
            first = segments.boundary(DICE.randrange(first, size))
            segments.free(first)
            os.pwrite(one.fd, bytes(first), 0)  # as a hole is read
        assert size_of("segments", dir_fd=folder) == parts.size() == whole.size()
        assert parts.first == first
        offset, length = DICE.randrange(size), DICE.randrange(1, 30_000)
        assert parts.read(length, offset) == whole.read(length, offset)
    assert first > 100_000
    for file in (whole, parts):
        file.close()


def test_what_a_ring_gives_back_takes_no_room_although_somebody_has_it_open(folder: int, tmp_path: Path) -> None:
    """It reads as zeros at once; what is deleted as a whole can be read on by whoever has it open."""
    ring = Segments("ring", BLOCK, dir_fd=folder)
    for number in range(10):
        os.pwrite(ring.at(number * BLOCK), bytes([number + 1]) * BLOCK, number * BLOCK)
    reader = open_file("ring", dir_fd=folder)
    files = [file for file in map(os.stat, descriptors(tmp_path / "ring")) if file.st_size]
    ring.free(ring.boundary(5 * BLOCK + 1))
    assert sum(file.st_blocks for file in files) > sum(
        file.st_blocks for file in map(os.stat, descriptors(tmp_path / "ring"))
    )
    assert reader.read(6 * BLOCK, BLOCK) == bytes(4 * BLOCK) + b"\6" * BLOCK + b"\7" * BLOCK
    assert reader.size() == 10 * BLOCK
    assert len(descriptors(tmp_path / "ring")) == 5 + 1  # what has been given back is let go of; one is the writer's
    delete("ring", dir_fd=folder)
    assert reader.size() == 10 * BLOCK
    assert reader.read(100 * BLOCK, 9 * BLOCK - 1) == b"\t" + b"\n" * BLOCK
    reader.close()


def descriptors(folder: Path) -> list[str]:
    """Those of this process that lead to the files of a folder."""
    own = Path("/proc/self/fd")
    return [str(link) for link in own.iterdir() if os.path.lexists(link) and f"{folder}/" in str(link.readlink())]
