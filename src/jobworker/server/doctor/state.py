"""The state directory: its rights, its database, and the file system under it."""

from __future__ import annotations

import errno
import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from jobworker.core.errors import StoreError
from jobworker.core.units import format_size
from jobworker.executors.growth import LONGEST, SHORTEST, OutputWatch, can_splice, watch_for
from jobworker.linux.mounts import mount_of
from jobworker.server.doctor.finding import Finding, error, ok, skipped, warning
from jobworker.store.base import Durability
from jobworker.store.sqlite_file import check_database, open_database

DATABASE, LOCK = "jobs.db", "lock"
_FOLDERS = ("jobs", "standby", "removed")
_USED = (LOCK, *(f"{DATABASE}{part}" for part in ("", "-wal", "-shm")), *_FOLDERS, "spawner.log")

_NAMES = ("state_dir", "file_system", "disk_space", "output_watch", "splice")
_IN_MEMORY = ("tmpfs", "ramfs")
_LITTLE_SPACE = 1024**3  # bytes; one talkative job writes as much while nobody looks
_REMEDY = "have a directory with all that is in it be the server user's own, and of one server (state_dir)"


def examine_state_dir(
    directory: Path | None, durability: Durability, output_watch: OutputWatch = "auto"
) -> Iterator[Finding]:
    """The directory, in which files are made for a moment; where it is missing, in the one that it would be made in."""
    if directory is None:
        yield from (skipped(name, "state_dir is not given") for name in _NAMES)
        return
    try:
        with tempfile.TemporaryDirectory(prefix="doctor-", dir=_existing(directory)) as name:
            trial = Path(name)
            open_database(trial / DATABASE, durability).close()
            yield from [_content(directory), _file_system(trial), _space(trial), *_watch(trial, output_watch)]
    except (StoreError, OSError) as problem:
        detail = f"{directory} cannot be used: {problem.strerror}" if isinstance(problem, OSError) else str(problem)
        yield error("state_dir", detail, _REMEDY)
        yield from (skipped(name, "state_dir cannot be used") for name in _NAMES[1:])


def _existing(directory: Path) -> Path:
    """The directory, or the nearest one above it that is there."""
    place = directory
    while not os.path.lexists(place) and place != place.parent:
        place = place.parent
    if not place.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(place))
    return place


def _content(directory: Path) -> Finding:
    """What an earlier server has left in it. Raises `StoreError` and `OSError`."""
    if not directory.exists():
        return ok("state_dir", f"{directory} can be made")
    _check_lock(directory / LOCK)
    if (directory / DATABASE).exists():
        check_database(directory / DATABASE)
    for name in _FOLDERS:
        if os.path.lexists(directory / name) and not (directory / name).is_dir():
            raise NotADirectoryError(errno.ENOTDIR, f"{name} is no directory")
    for path in filter(os.path.lexists, (directory / name for name in _USED)):
        if path.is_dir() and path.name not in _FOLDERS:
            raise IsADirectoryError(errno.EISDIR, f"{path.name} is a directory")
        if not os.access(path, os.R_OK | os.W_OK | (os.X_OK if path.is_dir() else 0), effective_ids=True):
            raise StoreError(f"{path} cannot be read and written")
    if directory.stat().st_mode & 0o077:
        return warning("state_dir", f"others may look into {directory}", f"chmod 700 {directory}")
    return ok("state_dir", f"{directory} can be used")


def _check_lock(lock: Path) -> None:
    if not lock.exists():
        return
    descriptor = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: two of these do not disturb each other
    except BlockingIOError:
        raise StoreError(f"the state directory {lock.parent} is in use by another server") from None
    finally:
        os.close(descriptor)


def _file_system(directory: Path) -> Finding:
    mount = mount_of(str(directory))
    kind = mount.kind
    remedy = "keep state_dir on a local disk"
    if mount.is_remote:
        detail = f"{kind} is in the network or shared with other machines, where locks and the database may fail"
        return warning("file_system", detail, remedy)
    if kind in _IN_MEMORY:
        return warning("file_system", f"{kind} is in memory: output takes memory, and is lost at a reboot", remedy)
    return ok("file_system", f"{kind} on {mount.source}")


def _space(directory: Path) -> Finding:
    status = os.statvfs(directory)
    free = status.f_bavail * status.f_frsize
    detail = f"{free / 1024**3:.1f} GiB are free"
    if status.f_files and not status.f_favail:
        return warning("disk_space", f"{detail}, and no inodes", "remove files there")
    if free < _LITTLE_SPACE:
        remedy = "make room, or set retention_bytes to less"
        return warning("disk_space", f"{detail}, less than {format_size(_LITTLE_SPACE)}", remedy)
    return ok("disk_space", detail)


def _watch(directory: Path, wanted: OutputWatch) -> Iterator[Finding]:
    """How new output is noticed, and whether it takes a copy."""
    watch = watch_for(directory, wanted)
    name = "output_watch"
    if watch == "poll":
        why = "" if wanted == "poll" else ": inotify does not tell of all that happens there"
        yield ok(name, f"poll: output is looked for every {SHORTEST * 1000:.0f} ms to {LONGEST:.0f} s{why}")
    else:
        yield ok(name, "inotify: the kernel tells when there is output")
    if can_splice(directory, watch):
        yield ok("splice", "output goes into its file without a copy")
    else:
        detail = "output is copied through the supervisor, which costs CPU time: no splice is taken or told of here"
        yield warning("splice", detail, "keep state_dir on a local disk, which an overlay is only since Linux 6.4")
