"""Compressed output beside the raw output that it was made from."""

from __future__ import annotations

import os
import random
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from jobworker.core.output import Chunk, GapReason
from jobworker.executors.base import Output
from jobworker.executors.growth import GrowthWatch
from jobworker.executors.output import FileOutput
from jobworker.executors.packed import LocalContent, PackedOutput
from jobworker.executors.packing import pack
from jobworker.executors.seekable import FRAME_BYTES
from jobworker.runtime import jobdir
from jobworker.runtime.gaps import GapReader, GapWriter
from jobworker.runtime.jobdir import JobDir
from jobworker.runtime.segments import HoledFile, Segments, size_of

DICE = random.Random(2)  # noqa: S311 - the same bytes every time
EXIT = {"end": {"time": datetime.now(UTC).isoformat()}}


class Directory:
    """The directory of a job that has ended, with what it wrote."""

    def __init__(self, path: Path, *, segment: int | None = None) -> None:
        self.path = path
        self._directory = JobDir.create(path)
        self._directory.write(jobdir.EXIT, EXIT, sync=False)
        if segment is None:
            self.file = HoledFile(self._directory.create_output(), 4096)
        else:
            self.file = Segments(jobdir.OUTPUT, segment, dir_fd=self._directory.fd)
        self.gaps = GapWriter(self._directory)
        self.end = 0

    def keep(self, size: int) -> None:
        """So many random bytes."""
        while size:
            length = min(size, 300_000)
            os.pwrite(self.file.at(self.end), DICE.randbytes(length), self.end)
            self.end += length
            size -= length
        self.gaps.close()

    def size(self) -> int:
        """That of the file."""
        return size_of(jobdir.OUTPUT, dir_fd=self._directory.fd)

    def lose(self, size: int, reason: GapReason) -> None:
        """So many bytes that could not be kept."""
        self.gaps.grow(self.end, size, reason)
        self.gaps.flush()
        self.end += size

    def close(self) -> None:
        """Close the files."""
        self._directory.close()
        os.close(self.file.fd)


@pytest.fixture
async def growth() -> AsyncGenerator[GrowthWatch]:
    """One for all readers."""
    watch = GrowthWatch()
    yield watch
    watch.close()


async def content(output: Output, offset: int, end: int) -> list[tuple[int, bytes | GapReason]]:
    """What is read from an offset on, each run of bytes as one."""
    found: list[tuple[int, bytes | GapReason]] = []
    while (piece := await output.read(offset, end, final=True)) is not None:
        what = piece.data if isinstance(piece, Chunk) else piece.reason
        if found and isinstance(what, bytes) and isinstance(before := found[-1][1], bytes):
            found[-1] = found[-1][0], before + what
        else:
            found.append((piece.offset, what))
        offset = piece.end
    return found


def whole(directory: Directory) -> None:
    """Nothing is missing; several frames."""
    directory.keep(2 * FRAME_BYTES + 77)


def trimmed(directory: Directory) -> None:
    """The beginning has made room for the rest."""
    directory.keep(FRAME_BYTES + 10_000)
    first = directory.file.boundary(FRAME_BYTES + 5000)
    directory.gaps.trim(first)
    directory.file.free(first)


def torn(directory: Directory) -> None:
    """There was no room from time to time, also before the first byte that is kept, and at the end."""
    for size in (5000, 10, FRAME_BYTES, 3):
        directory.keep(size)
        directory.lose(size + 1, GapReason.DISK_FULL)
    directory.keep(FRAME_BYTES)
    directory.gaps.trim(4_000)
    directory.lose(9, GapReason.LIMIT)
    directory.end += 100  # which nobody knows what has become of


@pytest.mark.parametrize("segment", [None, 400_000])
@pytest.mark.parametrize("fill", [whole, trimmed, torn])
async def test_compressed_output_is_read_as_the_raw_one(
    tmp_path: Path, growth: GrowthWatch, fill: object, segment: int | None
) -> None:
    """Bytes and gaps are the same ones from every offset, and what is missing takes no room."""
    assert callable(fill)
    directory = Directory(tmp_path / "job", segment=segment)
    fill(directory)
    path, end, size = os.fsencode(directory.path), directory.end, directory.size()
    raw = FileOutput(path, growth, indexed=False)
    with JobDir.open(directory.path) as opened:
        pack(opened, 0, "")
    assert sorted(file.name for file in directory.path.iterdir() if file.name != "gaps") == ["output.zst", "records"]
    packed = PackedOutput(path, LocalContent(path + b"/output.zst"), size=size)
    assert packed.extent() == raw.extent()
    for offset in (0, 4_000, FRAME_BYTES, FRAME_BYTES + 6, end - 1, end, *DICE.choices(range(end), k=20)):
        assert await content(packed, offset, end) == await content(raw, offset, end)
    assert (directory.path / "output.zst").stat().st_size <= raw.extent().kept + 10_000
    for output in (raw, packed, directory):
        output.close()


async def test_an_output_with_many_gaps_is_opened_at_once(
    tmp_path: Path, growth: GrowthWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits while all gaps are gone through: a read looks at some of them."""
    directory = Directory(tmp_path / "job")
    for _ in range(3000):
        directory.keep(7)
        directory.lose(5, GapReason.DISK_FULL)
    path, end, size = os.fsencode(directory.path), directory.end, directory.size()
    raw = FileOutput(path, growth, indexed=False)
    with JobDir.open(directory.path) as opened:
        pack(opened, 0, "")
    looks = 0
    record = GapReader._record  # pyright: ignore[reportPrivateUsage] - to count how many are looked at

    def counted(gaps: GapReader, number: int) -> tuple[int, int, int, int]:
        nonlocal looks
        looks += 1
        return record(gaps, number)

    monkeypatch.setattr(GapReader, "_record", counted)
    packed = PackedOutput(path, LocalContent(path + b"/output.zst"), size=size)
    assert looks == 0
    expected = await raw.read(end // 2, end, final=True)
    looks = 0
    assert await packed.read(end // 2, end, final=True) == expected
    assert looks < 100
    for output in (raw, packed, directory):
        output.close()


async def test_segments_that_are_deleted_are_deleted_or_not_there(
    tmp_path: Path, growth: GrowthWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A deletion that is cut off leaves nothing that anybody takes for the output, and is finished by the next one."""
    directory = Directory(tmp_path / "job", segment=400_000)
    directory.keep(1_500_000)
    unlink = os.unlink

    def unlink_once(path: str, *, dir_fd: int) -> None:
        unlink(path, dir_fd=dir_fd)
        if path.isdigit():
            raise InterruptedError

    with JobDir.open(directory.path) as opened:
        with monkeypatch.context() as patch:
            patch.setattr(os, "unlink", unlink_once)
            with pytest.raises(InterruptedError):
                pack(opened, 0, "")
        assert len(list((directory.path / "output").iterdir())) == 2
        with pytest.raises(FileNotFoundError):
            FileOutput(os.fsencode(directory.path), growth, indexed=False)
        pack(opened, 0, "")
    assert sorted(file.name for file in directory.path.iterdir()) == ["output.zst", "records"]
    directory.close()
