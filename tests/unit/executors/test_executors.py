"""The daemon's side: whom jobs run as, the handle on the spawner, and the watch over growing files."""

from __future__ import annotations

import asyncio
import os
import pwd
import resource
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from jobworker.core.errors import InvalidArgumentError
from jobworker.core.output import Chunk, Gap, GapReason
from jobworker.executors.growth import GrowthWatch
from jobworker.executors.output import FileOutput
from jobworker.executors.spawner import Spawner
from jobworker.executors.supervisors import BURY
from jobworker.executors.user import JobUser
from tests.support.workers import gone, open_files

ME = os.geteuid()


def test_jobs_run_as_nobody_where_the_daemon_is_root_and_else_as_its_own_user() -> None:
    """Nobody runs as root by omission, and only root may choose somebody else."""
    user = JobUser.find(None)
    assert (user.name, user.uid) == ("nobody", pwd.getpwnam("nobody").pw_uid) if ME == 0 else (user.name, ME)
    assert JobUser.find(user.name) == user
    with pytest.raises(InvalidArgumentError, match="no user 'no-such-user'"):
        JobUser.find("no-such-user")


@pytest.mark.skipif(ME != 0, reason="only root may become another user to try it")
def test_only_root_may_choose_another_user() -> None:
    """Found out when a daemon starts, not when a job does."""
    nobody = pwd.getpwnam("nobody")
    os.seteuid(nobody.pw_uid)
    try:
        assert JobUser.find(None).name == "nobody"
        assert JobUser.find("nobody").uid == nobody.pw_uid
        with pytest.raises(InvalidArgumentError, match="only root"):
            JobUser.find("root")
    finally:
        os.seteuid(ME)


async def test_a_spawner_that_has_died_is_replaced(tmp_path: Path) -> None:
    """By the next request; nothing of the old one is left, and closing ends the new one."""
    files = sorted(open_files())
    spawner = Spawner(tmp_path / "log", tmp_path, None)
    spawner.start()
    first = spawner.pid
    os.kill(first, signal.SIGKILL)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as any_descriptor:
        await spawner.request(BURY, [any_descriptor.fileno()] * 3)
        gone([first])
        while spawner.pid == first or not spawner.pid:  # the first request may have gone to the dying one
            await asyncio.sleep(0)  # one turn of the loop, which notices what has died
            await spawner.request(BURY, [any_descriptor.fileno()] * 3)
    second = spawner.pid
    await spawner.close()
    gone([second])
    await spawner.close()
    assert sorted(open_files()) == files


async def test_a_spawner_that_stands_still_is_killed_when_it_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a while, here a short one: whoever ends a server does not wait for ever."""
    monkeypatch.setattr("jobworker.executors.spawner._CLOSE_PATIENCE", 0.1)
    spawner = Spawner(tmp_path / "log", tmp_path, None)
    spawner.start()
    stopped = spawner.pid
    os.kill(stopped, signal.SIGSTOP)
    await spawner.close()
    gone([stopped])


async def test_a_spawner_without_a_log_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    """Also no descriptor."""
    files = sorted(open_files())
    with pytest.raises(FileNotFoundError):
        Spawner(tmp_path / "no" / "log", tmp_path, None).start()
    assert sorted(open_files()) == files


async def test_readers_of_a_file_are_told_that_it_has_grown(tmp_path: Path) -> None:
    """Each of them, by one inotify instance; who has left is not; the last one takes the watch along."""
    watch = GrowthWatch()
    path = tmp_path / "output"
    path.write_bytes(b"one")
    readers = [FileOutput(os.fsencode(tmp_path), watch, indexed=indexed) for indexed in (False, True, False)]
    for reader in readers:
        assert await reader.read(0, 100, final=False) == Chunk(offset=0, data=b"one")
        assert await reader.read(3, 100, final=False) is None
        assert await reader.read(9, 100, final=False) is None
    waiting = [asyncio.ensure_future(reader.changed()) for reader in readers]
    await asyncio.sleep(0)  # one turn of the loop, so that they wait
    with path.open("ab") as file:
        file.write(b"two")
    async with asyncio.timeout(10):
        await asyncio.gather(*waiting)
    assert [await reader.read(3, 5, final=False) for reader in readers] == [Chunk(offset=3, data=b"tw")] * 3
    assert open_files().count("anon_inode:inotify") == 1
    readers[0].close()
    path.unlink()
    for reader in readers[1:]:
        assert await reader.read(0, 100, final=False) == Chunk(offset=0, data=b"onetwo")
        reader.wake()
        await reader.changed()
        reader.close()
    watch.close()
    assert "anon_inode:inotify" not in open_files()


async def test_a_backlog_is_read_without_stopping_the_loop(tmp_path: Path) -> None:
    """Large reads happen elsewhere, and give what small ones would."""
    watch = GrowthWatch()
    data = os.urandom(3_000_000)
    (tmp_path / "output").write_bytes(data)
    reader = FileOutput(os.fsencode(tmp_path), watch, indexed=False)
    assert reader.extent().end == len(data)
    for offset in (5, 2_999_000):
        piece = await reader.read(offset, len(data), final=False)
        assert piece == Chunk(offset=offset, data=data[offset : offset + (1 << 20)])
    reader.close()
    watch.close()


async def test_what_has_been_given_back_is_never_taken_for_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader whose bytes are given back while it reads them is told of a gap: it looks after the read."""
    watch = GrowthWatch()
    (tmp_path / "output").write_bytes(bytes(3_000_000))
    reader = FileOutput(os.fsencode(tmp_path), watch, indexed=False)

    def read_late(fd: int, size: int, offset: int, pread: Callable[[int, int, int], bytes] = os.pread) -> bytes:
        data = pread(fd, size, offset)
        if offset == 5 and size > 1000:
            (tmp_path / "gaps").write_bytes((2_000_000).to_bytes(8, "little"))
        return data

    monkeypatch.setattr(os, "pread", read_late)
    assert await reader.read(5, 3_000_000, final=False) == Gap(offset=5, length=1_999_995, reason=GapReason.TRIMMED)
    reader.close()
    watch.close()


async def test_a_file_that_is_not_there_leaves_nothing_open(tmp_path: Path) -> None:
    """Neither a descriptor nor a watch."""
    watch = GrowthWatch()
    files = sorted(open_files())
    with pytest.raises(FileNotFoundError):
        FileOutput(os.fsencode(tmp_path / "none"), watch, indexed=False)
    assert sorted(open_files()) == files
    watch.close()


async def test_output_that_there_is_no_descriptor_for_leaves_nothing_open(tmp_path: Path) -> None:
    """However many of its files there was one for; with enough of them it is opened."""
    watch = GrowthWatch()
    for name in ("output", "index", "gaps"):
        (tmp_path / name).write_bytes(bytes(16))
    files = sorted(open_files())
    free = os.dup(0)
    os.close(free)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for count in range(3):
        resource.setrlimit(resource.RLIMIT_NOFILE, (free + count, hard))
        try:
            with pytest.raises(OSError, match="Too many open files"):
                FileOutput(os.fsencode(tmp_path), watch, indexed=True)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert sorted(open_files()) == files
    FileOutput(os.fsencode(tmp_path), watch, indexed=True).close()
    assert sorted(open_files()) == files
    watch.close()
