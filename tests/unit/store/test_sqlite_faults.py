"""Whatever is wrong with the database, the store says so in one line with what to do, and harms nothing."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from jobworker.core.errors import StoreError
from jobworker.core.query import JobFilter
from jobworker.core.spec import JobSpec
from jobworker.store.sql import migrations
from jobworker.store.sqlite import SqliteStore
from tests.support.jobs import accepted_job, started

ROOT = Path(__file__).parents[3]
PAGE_BYTES = 4096  # SQLite's default, which the store leaves alone


async def make_database(path: Path, *, jobs: int = 20) -> None:
    """Leave a database of several pages behind."""
    async with await SqliteStore.open(path) as store:
        for _ in range(jobs):
            await store.put(started(accepted_job(spec=JobSpec(argv=("x" * 3000,)))))


async def refusal(path: Path) -> str:
    """What the opening says."""
    with pytest.raises(StoreError) as refused:
        await SqliteStore.open(path)
    return str(refused.value)


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "garbage": lambda data: os.urandom(len(data)),
    "a short text": lambda _: b"this is no database\n",
    "wrong magic": lambda data: b"SQLITE" + data[6:],
    "header only": lambda data: data[:100],
    "cut in the header": lambda data: data[:50],
    "cut to a page": lambda data: data[:PAGE_BYTES],
    "cut in the middle": lambda data: data[: len(data) // 2 // PAGE_BYTES * PAGE_BYTES],
    "cut within a page": lambda data: data[: len(data) // 2 + 100],
    "schema overwritten": lambda data: data[:100] + b"\xff" * (PAGE_BYTES - 100) + data[PAGE_BYTES:],
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
async def test_a_damaged_database_is_refused_at_the_start(path: Path, damage: Callable[[bytes], bytes]) -> None:
    """It is named, the way out is told, the file stays as it was, and that way out works."""
    await make_database(path)
    damaged = damage(path.read_bytes())
    path.write_bytes(damaged)
    text = await refusal(path)
    assert text.startswith(f"the job database {path} is damaged: move it away")
    assert "the job directories hold every job" in text
    assert "\n" not in text
    assert path.read_bytes() == damaged
    path.rename(path.with_suffix(".damaged"))
    async with await SqliteStore.open(path) as store:
        assert await store.open_ids() == []


async def test_an_empty_file_is_a_new_database(path: Path) -> None:
    """A file cut to nothing has nothing wrong in it; the jobs come back from their directories."""
    path.touch()
    async with await SqliteStore.open(path) as store:
        assert await store.open_ids() == []


async def test_the_log_of_a_database_that_was_moved_away_is_not_taken_over(path: Path) -> None:
    """Moving only the database itself away, and not its log, does not bring old pages into the new one."""
    store = await SqliteStore.open(path)
    await store.put(accepted_job())
    log = path.with_name(f"{path.name}-wal")
    left_over = log.read_bytes()
    await store.close()
    path.unlink()
    log.write_bytes(left_over)
    async with await SqliteStore.open(path) as new:
        assert await new.open_ids() == []
        await new.put(accepted_job())
        assert len(await new.open_ids()) == 1


async def test_damage_that_is_found_later_is_an_error_of_the_call(path: Path) -> None:
    """Pages that no opening looks at are noticed when they are needed, and the store still answers other calls."""
    await make_database(path, jobs=200)
    data = path.read_bytes()
    with closing(sqlite3.connect(path)) as connection:
        roots = dict(connection.execute("SELECT name, rootpage FROM sqlite_master WHERE rootpage > 0"))
    offset = (roots["jobs_by_owner"] - 1) * PAGE_BYTES
    path.write_bytes(data[:offset] + b"\xff" * PAGE_BYTES + data[offset + PAGE_BYTES :])
    async with await SqliteStore.open(path) as store:
        with pytest.raises(StoreError, match="the job database is damaged: move it away"):
            await store.page(JobFilter(owner="ada"), size=9)
        assert len((await store.page(JobFilter(), size=9)).jobs) == 9
        with pytest.raises(StoreError, match="damaged"):
            await store.put(accepted_job())


async def test_a_database_of_a_newer_release_is_refused(path: Path) -> None:
    """It is told apart from a damaged one, and nothing is written to it."""
    newer = len(migrations()) + 1
    await make_database(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {newer}")
    before = path.read_bytes()
    text = await refusal(path)
    assert f"written by a newer jobworker (schema {newer}, this one knows {newer - 1})" in text
    assert "install that one again" in text
    assert path.read_bytes() == before


async def test_a_database_of_another_program_is_refused(path: Path) -> None:
    """Whatever version it says that it has, and nothing is written to it."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE customers (name)")
        connection.execute("PRAGMA user_version = 1")
    before = path.read_bytes()
    assert "belongs to another program" in await refusal(path)
    assert path.read_bytes() == before


async def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    """A directory, a dangling link and a missing folder are named for what they are."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "nothing")
    for name in ("folder", "link"):
        text = await refusal(tmp_path / name)
        assert text.startswith(f"the job database {tmp_path / name} is no regular file: move it away")
    missing = tmp_path / "missing" / "jobs.db"
    assert await refusal(missing) == f"cannot open the job database {missing}: No such file or directory"


async def test_a_program_that_keeps_the_database_locked_is_reported(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The call fails after a wait, in words, and works once the lock is gone."""
    monkeypatch.setattr("jobworker.store.sqlite_file._BUSY_SECONDS", 0.05)
    async with await SqliteStore.open(path) as store:
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreError, match="locked by another program"):
                await store.put(accepted_job())
            other.execute("ROLLBACK")
        await store.put(accepted_job())


def with_disk_fault(fault: str, folder: Path, *wrapper: str) -> dict[str, Any]:
    """What the program disk_faults found, run by a wrapper."""
    command = [*wrapper, sys.executable, "-m", "tests.unit.store.disk_faults", fault, str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def own_mounts() -> list[str]:
    """The words before a command that let it mount what only itself sees."""
    words = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--mount", "--map-root-user"]
    try:
        tried = subprocess.run([*words, "true"], capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("needs the program unshare to mount a small disk")
    if tried.returncode != 0:
        pytest.skip(f"may not mount a small disk here: {tried.stderr.decode().strip()}")
    return words


EXACT = {"exact_when_full": True, "exact_at_last": True, "ended": True, "integrity": "ok"}


def test_on_a_full_disk_a_call_fails_and_the_store_goes_on_with_room(tmp_path: Path, own_mounts: list[str]) -> None:
    """What was answered is there, what was refused is not, reading goes on, and so does writing once there is room."""
    found = with_disk_fault("full", tmp_path, *own_mounts)
    refused = found.pop("refusal")
    assert refused == "the job database cannot be written, because its disk is full: make room there"
    assert found == EXACT


def test_a_write_that_fails_is_an_error_and_the_store_goes_on_without_the_fault(tmp_path: Path) -> None:
    """As a full disk, for a write that fails for another reason (EFBIG)."""
    found = with_disk_fault("limited", tmp_path)
    refused = found.pop("refusal")
    assert refused.startswith("the job database cannot be read or written (disk I/O error)")
    assert found == EXACT


def test_a_disk_that_is_full_at_the_start_is_named(tmp_path: Path, own_mounts: list[str]) -> None:
    """The opening fails in words, and succeeds with room."""
    path = tmp_path / "jobs.db"
    assert with_disk_fault("full-at-start", tmp_path, *own_mounts) == {
        "refusal": f"the job database {path} cannot be written, because its disk is full: make room there",
        "then": None,
    }


def test_a_read_only_disk_is_named_at_the_start(tmp_path: Path, own_mounts: list[str]) -> None:
    """A daemon that could remember nothing does not start."""
    path = tmp_path / "jobs.db"
    assert with_disk_fault("read-only", tmp_path, *own_mounts) == {
        "refusal": f"the job database {path} cannot be written: make its file, its folder and their disk writable"
    }
