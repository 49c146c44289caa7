"""How readers are told that their file has grown where the kernel does not tell."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from jobworker.core.output import Chunk
from jobworker.executors import growth
from jobworker.executors.growth import LONGEST, SHORTEST, GrowthWatch, Poll, can_splice, watch_for
from jobworker.executors.output import FileOutput
from jobworker.linux import syscalls
from jobworker.linux.mounts import Mount
from tests.support.polling import until
from tests.support.workers import LIMIT, open_files


def without_room(_instance: int, _path: bytes, _mask: int) -> int:
    """As `inotify_add` where this user has as many watches as it may."""
    raise OSError(errno.ENOSPC, "no room")


def silent(_instance: int, _path: bytes, _mask: int) -> int:
    """As `inotify_add` where nothing is told."""
    return 1


def without_instance() -> int:
    """As `inotify_open` where this user has as many instances as it may."""
    raise OSError(errno.EMFILE, "no more")


def wanted(_patch: pytest.MonkeyPatch) -> GrowthWatch:
    """A watch that looks because that is wanted."""
    return GrowthWatch("poll")


def no_instance(patch: pytest.MonkeyPatch) -> GrowthWatch:
    """A watch that has no instance of inotify."""
    patch.setattr(syscalls, "inotify_open", without_instance)
    return GrowthWatch()


def no_watches(patch: pytest.MonkeyPatch) -> GrowthWatch:
    """A watch whose instance takes no more files."""
    patch.setattr(syscalls, "inotify_add", without_room)
    return GrowthWatch()


@pytest.mark.parametrize("make", [wanted, no_instance, no_watches])
async def test_files_are_looked_at_where_the_kernel_does_not_tell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[pytest.MonkeyPatch], GrowthWatch]
) -> None:
    """By one task for all readers, which ends with the last of them; a new file in the folder is seen, too."""
    path = tmp_path / "output"
    path.write_bytes(b"one")
    files, tasks = sorted(open_files()), asyncio.all_tasks()
    watch = make(monkeypatch)
    readers = [FileOutput(os.fsencode(tmp_path), watch, indexed=number % 2 == 1) for number in range(20)]
    await asyncio.sleep(0)  # one turn of the loop, in which the task begins
    (task,) = asyncio.all_tasks() - tasks
    for reader in readers:
        assert await reader.read(3, 100, final=False) is None
    with path.open("ab") as file:
        file.write(b"two")
    async with asyncio.timeout(LIMIT):
        await asyncio.gather(*(reader.changed() for reader in readers))
        assert [await reader.read(3, 9, final=False) for reader in readers] == [Chunk(offset=3, data=b"two")] * 20
        (tmp_path / "index").write_bytes(bytes(16))
        await readers[1].changed()
        for reader in readers:
            reader.wake()
            await reader.changed()
            reader.close()
        await asyncio.wait([task])
    watch.close()
    assert sorted(open_files()) == files


async def test_what_comes_right_after_a_look_is_not_missed(tmp_path: Path) -> None:
    """The time of a file may stay the same then; who follows is told a second time."""
    path = tmp_path / "index"
    path.write_bytes(b"one")
    poll, reader = Poll(), asyncio.Event()
    remove = poll.add(os.fsencode(path), reader)
    path.write_bytes(b"others")
    async with asyncio.timeout(LIMIT):
        for _ in range(2):
            await reader.wait()
            reader.clear()
    remove()
    poll.close()


async def test_a_file_is_looked_at_often_while_it_grows_and_seldom_while_it_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After twice as long each time, within bounds."""
    path = tmp_path / "output"
    path.write_bytes(b"one")
    now = 100.0
    waits: list[float] = []
    with monkeypatch.context() as patch:
        patch.setattr(asyncio.get_running_loop(), "time", lambda: now)
        file = growth._Polled(path)  # pyright: ignore[reportPrivateUsage] - without the clock
        for data in (*[b"one"] * 10, b"one two", b"one two"):
            waits.append(file.look_at - now)
            now = file.look_at
            path.write_bytes(data)
            os.utime(path, (0, 0))
            file.saw(growth._state(path))  # pyright: ignore[reportPrivateUsage] - as above
        waits.append(file.look_at - now)
    growing = [SHORTEST, SHORTEST, *(min(SHORTEST * 2**step, LONGEST) for step in range(1, 10))]
    assert waits == pytest.approx([*growing, SHORTEST, 2 * SHORTEST])
    assert (waits[0], max(waits)) == pytest.approx((SHORTEST, LONGEST))


async def test_only_what_somebody_follows_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file whose readers have left is not."""
    looks: list[list[str]] = []
    states = growth._states  # pyright: ignore[reportPrivateUsage] - to see them

    def seen(paths: list[Path]) -> list[object]:
        looks.append([path.name for path in paths])
        return states(paths)

    monkeypatch.setattr(growth, "_states", seen)
    poll = Poll()
    remove_a, remove_b, _ = (poll.add(os.fsencode(tmp_path / name), asyncio.Event()) for name in "abb")
    await until(lambda: {"a", "b"} == {name for names in looks for name in names})
    remove_a()
    remove_b()
    looks.clear()
    await until(lambda: len(looks) > 1)
    assert all(names == ["b"] for names in looks[1:])  # one may have been under way
    poll.close()


def test_how_to_watch_is_decided_by_the_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the kernel where it tells of what is written and knows of all of it; what was wanted comes first."""
    assert (watch_for(tmp_path, "auto"), watch_for(tmp_path, "poll")) == ("inotify", "poll")
    assert can_splice(tmp_path, "poll")

    def on_nfs(_path: str) -> Mount:
        return Mount("/", "/", "nfs4", "server:/", "rw")

    with monkeypatch.context() as patch:
        patch.setattr(growth, "mount_of", on_nfs)
        assert (watch_for(tmp_path, "auto"), watch_for(tmp_path, "inotify")) == ("poll", "inotify")
    for name, call, expected in (
        ("inotify_add", silent, "poll"),
        ("inotify_open", without_instance, "poll"),
        ("inotify_add", without_room, "inotify"),  # nothing is known; files for which there is none are looked at
    ):
        with monkeypatch.context() as patch:
            patch.setattr(syscalls, name, call)
            assert watch_for(tmp_path, "auto") == expected
            assert not can_splice(tmp_path, "inotify")
            assert can_splice(tmp_path, "poll")
