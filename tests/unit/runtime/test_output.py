"""What is kept of a job's output, and what is said of the rest."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import pytest

from jobworker.core.output import Gap, GapReason
from jobworker.executors.directories import disk_bytes
from jobworker.executors.files import open_file
from jobworker.executors.index import FileIndex
from jobworker.linux import syscalls
from jobworker.runtime.gaps import Extent, GapReader, GapWriter, extent
from jobworker.runtime.index import MISSING, RECORD, IndexWriter
from jobworker.runtime.jobdir import JobDir
from jobworker.runtime.output import OutputPipe, OutputPump
from jobworker.runtime.segments import name_of

LIMIT = 65_536


@pytest.fixture
def directory(tmp_path: Path) -> Generator[JobDir]:
    """A job directory."""
    with JobDir.create(tmp_path / "job") as directory:
        yield directory


class Kept:
    """A pump and a pipe of a directory."""

    def __init__(self, directory: JobDir, *, sync: bool = False, **output: object) -> None:
        defaults = {"limit": None, "policy": None, "reserve": 0, "splice": True, "holes": True}
        self.pump = OutputPump(directory, {**defaults, **output}, sync=sync)
        self.pipe = OutputPipe()
        self._directory = directory

    def write(self, data: bytes) -> None:
        """Have some output come."""
        os.write(self.pipe.write_end, data)
        self.pump.drain(self.pipe)

    def content(self) -> bytes:
        """The file."""
        with closing(open_file("output", dir_fd=self._directory.fd)) as file:
            return file.read(file.size(), 0)

    def extent(self) -> Extent:
        """What a reader finds."""
        return extent(dir_fd=self._directory.fd)

    def gaps(self) -> list[Gap]:
        """All gaps."""
        gaps, found, offset = GapReader(), list[Gap](), 0
        fd = self._directory.open_to_write("gaps")
        gaps.read(fd)
        os.close(fd)
        while (gap := gaps.after(offset)) is not None:
            found.append(gap)
            offset = gap.end
        return found


@pytest.mark.parametrize("splice", [True, False])
def test_a_pump_keeps_all_and_ends_with_the_last_writer(directory: JobDir, *, splice: bool) -> None:
    """Its size is the file's; the pipe's end is its end; nothing is said to be missing."""
    kept = Kept(directory, splice=splice)
    assert directory.output_size() == 0
    assert not kept.pump.pump(kept.pipe)
    kept.write(b"one\0")
    os.write(kept.pipe.write_end, b"two")
    kept.pipe.close_write_end()
    kept.pump.drain(kept.pipe)
    assert not kept.pump.pump(kept.pipe)
    assert kept.pipe.ended
    assert kept.content() == b"one\0two"
    assert kept.extent() == Extent(first=0, end=7, dropped=0, size=7)
    with pytest.raises(FileNotFoundError):
        os.stat("gaps", dir_fd=directory.fd)
    with pytest.raises(FileExistsError):
        directory.create_output()


@pytest.mark.parametrize("splice", [True, False])
@pytest.mark.parametrize("form", ["", "policy='KEEP_LAST', limit=1 << 20, holes=False"], ids=["file", "segments"])
def test_what_a_file_cannot_take_is_a_gap_after_which_keeping_goes_on(
    tmp_path: Path, form: str, *, splice: bool
) -> None:
    """Dropped bytes are counted and have offsets; what comes when there is room again is at its offset."""
    code = f"""
import os, resource
from pathlib import Path
from jobworker.core.output import Gap, GapReason
from jobworker.linux import sandbox
from jobworker.runtime import output
from jobworker.runtime.jobdir import JobDir
from tests.unit.runtime.test_output import Kept
output.FULL_RETRY = 0
sandbox.default_signals()  # as in a supervisor, which SIGXFSZ must not end either
kept = Kept(JobDir.create({str(tmp_path / "job")!r}), splice={splice}, {form})
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
for _ in range(5):
    kept.write(b"x" * 60_000)
pump = kept.pump
assert pump.size == 300_000, pump.size
first = pump.size - pump.dropped
assert kept.gaps() == [Gap(offset=first, length=pump.dropped, reason=GapReason.DISK_FULL)]
assert kept.extent().end == 300_000
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
kept.write(b"y" * 1000)
assert kept.content() == b"x" * first + bytes(pump.dropped) + b"y" * 1000
assert kept.extent() == (0, 301_000, pump.dropped, 301_000)
assert len(kept.gaps()) == 1
resource.setrlimit(resource.RLIMIT_FSIZE, (301_000, resource.RLIM_INFINITY))
kept.write(b"z" * 10)
assert kept.gaps()[1:] == [Gap(offset=301_000, length=10, reason=GapReason.DISK_FULL)]
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[3])


def test_looking_for_room_on_a_full_disk_takes_none(directory: JobDir, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often output comes and the end is tried to be recorded, the index gets one record of what is missing."""
    monkeypatch.setattr("jobworker.runtime.output.FULL_RETRY", 0)
    kept = Kept(directory, reserve=1 << 62)
    for _ in range(50):
        kept.write(b"x")
        kept.pump._index._time -= 2_000_000  # pyright: ignore[reportPrivateUsage] - as if milliseconds had passed
    with pytest.raises(FileNotFoundError):
        os.stat("index", dir_fd=directory.fd)
    for _ in range(50):
        assert kept.pump.settle()
        kept.pump._index._time -= 2_000_000  # pyright: ignore[reportPrivateUsage] - as above
    assert os.stat("index", dir_fd=directory.fd).st_size == RECORD.size
    assert kept.gaps() == [Gap(offset=0, length=50, reason=GapReason.DISK_FULL)]


def test_a_segment_that_cannot_be_made_is_a_gap(directory: JobDir, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on any full disk: what would be in it is missing, and the next one is tried when there may be room."""
    monkeypatch.setattr("jobworker.runtime.output.FULL_RETRY", 0)
    kept = Kept(directory, limit=8 * LIMIT, policy="KEEP_LAST", holes=False)
    kept.write(b"x" * LIMIT)
    folder = Path(f"/proc/self/fd/{directory.fd}/output")
    folder.joinpath(name_of(LIMIT)).mkdir()  # so that no file can be made there
    kept.write(b"y" * 1000)
    folder.joinpath(name_of(LIMIT)).rmdir()
    kept.write(b"z" * 1000)
    assert kept.content() == b"x" * LIMIT + bytes(1000) + b"z" * 1000
    assert kept.gaps() == [Gap(offset=LIMIT, length=1000, reason=GapReason.DISK_FULL)]
    assert sorted(file.name for file in folder.iterdir()) == [name_of(0), name_of(LIMIT + 1000)]


@pytest.mark.parametrize("policy", ["STOP", "DROP"])
def test_never_more_than_the_limit_is_kept(directory: JobDir, policy: str) -> None:
    """Exactly that much is no excess; the next byte is, and is dropped and counted with all that follow."""
    kept = Kept(directory, limit=LIMIT, policy=policy)
    kept.write(b"x" * (LIMIT - 10))
    kept.write(b"y" * 10)
    assert not kept.pump.over_limit
    kept.write(b"z" * 5)
    assert kept.pump.over_limit
    kept.write(b"z" * 100_000)
    assert kept.pump.settle()
    assert kept.content() == b"x" * (LIMIT - 10) + b"y" * 10
    assert kept.gaps() == [Gap(offset=LIMIT, length=100_005, reason=GapReason.LIMIT)]
    assert kept.extent() == Extent(first=0, end=LIMIT + 100_005, dropped=100_005, size=LIMIT)


def test_an_end_at_the_limit_is_no_excess(directory: JobDir) -> None:
    """Nothing more has come."""
    kept = Kept(directory, limit=LIMIT, policy="STOP")
    kept.write(b"x" * LIMIT)
    kept.pipe.close_write_end()
    assert not kept.pump.pump(kept.pipe)
    assert kept.pipe.ended
    assert not kept.pump.over_limit


@pytest.mark.parametrize("splice", [True, False])
@pytest.mark.parametrize("holes", [True, False])
def test_a_ring_keeps_at_least_its_limit_and_little_more(
    directory: JobDir, monkeypatch: pytest.MonkeyPatch, *, holes: bool, splice: bool
) -> None:
    """What is told to be kept is there, what is not takes no room on the disk, in the index neither."""
    monkeypatch.setattr("jobworker.runtime.index._MIN_SEGMENT", 8 * 1024)
    kept = Kept(directory, limit=LIMIT, policy="KEEP_LAST", holes=holes, splice=splice)
    written, first = b"", 0
    for number in range(5000):
        piece = b"%09d\n" % number * 20
        written += piece
        kept.pump._index._time -= 2_000_000  # pyright: ignore[reportPrivateUsage] - as if milliseconds had passed
        kept.write(piece)
        first = kept.pump.first
        assert min(len(written), LIMIT) <= len(written) - first <= LIMIT * 5 // 4
    assert kept.extent() == Extent(first=first, end=len(written), dropped=0, size=len(written))
    assert kept.content() == bytes(first) + written[first:]
    assert not kept.pump.over_limit
    for name, bound in (("output", LIMIT * 3 // 2), ("index", 16 * 1024)):  # and a block more for each of some segments
        path = Path(f"/proc/self/fd/{directory.fd}/{name}")
        assert path.is_dir() is not holes
        assert path.stat().st_blocks * 512 + disk_bytes(path) <= bound + (0 if holes else 10 * 4096)
    index = FileIndex(os.fsencode(f"/proc/self/fd/{directory.fd}/index"))
    assert len(index) == 5000 or not holes  # what lies in two segments may have come at two times
    spans = index.spans(0, len(index))
    assert [span.end for span in spans] == sorted(span.end for span in spans)
    ends = [span.end for span in spans if span.end > first and span.end % 200 == 0]
    assert ends == list(range(first // 200 * 200 + 200, 1_000_001, 200))
    index.close()


def test_where_an_output_with_many_gaps_ends_is_told_by_the_last_one(
    directory: JobDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It costs the same however many there are, and each of them is found."""
    os.close(directory.create_output())
    gaps = GapWriter(directory)
    count = 5000
    for number in range(count):
        gaps.grow(number * 20, 4, GapReason.DISK_FULL)
        gaps.grow(number * 20 + 4, 6, GapReason.DISK_FULL)
        gaps.flush()
        gaps.close()
    bytes_read = 0
    pread = os.pread

    def counted(fd: int, size: int, offset: int) -> bytes:
        nonlocal bytes_read
        data = pread(fd, size, offset)
        bytes_read += len(data)
        return data

    reader, fd = GapReader(), os.open("gaps", os.O_RDONLY, dir_fd=directory.fd)
    with monkeypatch.context() as patch:
        patch.setattr(os, "pread", counted)
        assert extent(dir_fd=directory.fd) == Extent(first=0, end=count * 20 - 10, dropped=count * 10, size=0)
        assert bytes_read < 100
        reader.read(fd)
        bytes_read = 0
        reader.read(fd)
        assert reader.extent(0) == extent(dir_fd=directory.fd)
        assert bytes_read < 200
    os.close(fd)
    assert reader.after(777 * 20 + 10) == Gap(offset=778 * 20, length=10, reason=GapReason.DISK_FULL)
    assert reader.after(778 * 20 + 9) == Gap(offset=778 * 20, length=10, reason=GapReason.DISK_FULL)
    assert reader.after(count * 20 - 10) is None


@pytest.mark.parametrize("sync", [False, True])
def test_a_beginning_is_given_back_once_a_power_cut_cannot_undo_that_it_was_told(
    directory: JobDir, monkeypatch: pytest.MonkeyPatch, *, sync: bool
) -> None:
    """Where that is asked for: the file that tells it and its name are on the disk before each hole."""
    acts: list[str] = []
    fsync, punch_hole = os.fsync, syscalls.punch_hole

    def name(fd: int) -> str:
        return Path(f"/proc/self/fd/{fd}").readlink().name

    def synced(fd: int) -> None:
        acts.append(name(fd))
        fsync(fd)

    def punched(fd: int, offset: int, length: int) -> None:
        acts.append("hole in " + name(fd))
        punch_hole(fd, offset, length)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(syscalls, "punch_hole", punched)
    kept = Kept(directory, limit=LIMIT, policy="KEEP_LAST", sync=sync)
    kept.write(b"x" * LIMIT)
    for _ in range(2):
        kept.write(b"x" * (LIMIT // 4))
    hole = "hole in output"
    assert acts == (["gaps", "job", hole, "gaps", hole] if sync else [hole, hole])


class Clock:
    """Time that a test lets pass."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 10**18
        monkeypatch.setattr(time, "time_ns", lambda: self.now)


@pytest.mark.parametrize("kind", [0, MISSING])
def test_an_index_does_not_grow_without_bound_while_little_is_kept(
    directory: JobDir, monkeypatch: pytest.MonkeyPatch, kind: int
) -> None:
    """What comes within a longer time is one part then: its times are less exact, and no byte is without one."""
    clock = Clock(monkeypatch)
    writer = IndexWriter(directory)
    count = 200_000
    for end in range(1, count + 1):
        clock.now += 1_000_000
        writer.add(end, kind)
    index = FileIndex(os.fsencode(f"/proc/self/fd/{directory.fd}/index"))
    assert 65_536 < len(index) < 65_536 + 8 * 4096
    spans = index.spans(0, count)
    assert [span.end for span in spans[:65_536]] == list(range(1, 65_537))
    assert all(before.end == after.offset and before.time < after.time for before, after in pairwise(spans))
    assert (spans[0].offset, spans[-1].end) == (0, count)
    index.close()


def test_lines_of_some_length_have_exact_times_however_many_there_are(
    directory: JobDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The index takes a quarter of what is kept, at most, so they need not be one."""
    clock = Clock(monkeypatch)
    writer = IndexWriter(directory)
    for number in range(1, 100_001):
        clock.now += 1_000_000
        writer.add(number * 64, 0)
    assert os.stat("index", dir_fd=directory.fd).st_size == 100_000 * 16
