"""Control groups, version 2: a group a job, so that nothing that the job starts can get away.

A group is used once: on some kernels everything that is born into a group after a `cgroup.kill` of it dies at birth.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

from jobworker.linux import kernel_file

_DELEGATED = ("trusted.delegate", "user.delegate")  # set by systemd on a subtree that it leaves to a service


class Cgroup:
    """One control group by the path of its directory."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)

    def create(self) -> None:
        """Make the group. Raises `OSError`."""
        os.mkdir(self.path)

    def open(self) -> int:
        """A descriptor of the group to clone into."""
        return os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def open_events(self) -> int:
        """A descriptor of cgroup.events that polls POLLPRI when the group becomes empty or is populated."""
        return os.open(f"{self.path}/cgroup.events", os.O_RDONLY | os.O_CLOEXEC)

    def add(self, pid: int) -> None:
        """Move a process (0: the calling one) into the group. Slower than being born there."""
        kernel_file.write(f"{self.path}/cgroup.procs", str(pid))

    def kill(self) -> None:
        """Kill all processes of the group and of the groups below it, also those that are being forked or frozen."""
        kernel_file.write(f"{self.path}/cgroup.kill", "1")

    def processes(self) -> list[int]:
        """Pids of the processes of the group and of the groups below it; a group that is gone has none."""
        found: list[int] = []
        for directory, _, _ in os.walk(self.path):
            # FileNotFoundError, or ENODEV: removed between the walk and the read
            with suppress(OSError):
                found += map(int, kernel_file.read(f"{directory}/cgroup.procs").split())
        return found

    @property
    def populated(self) -> bool:
        """Whether a living process is in the group or below it; a group that is gone is not populated."""
        try:
            return b"populated 1" in kernel_file.read(f"{self.path}/cgroup.events")
        except FileNotFoundError:
            return False
        except OSError as error:
            if error.errno == errno.ENODEV:
                return False
            raise

    def remove(self) -> bool:
        """Remove the group and those below it; `False` if processes hold it still."""
        for directory, _, _ in os.walk(self.path, topdown=False):
            try:
                os.rmdir(directory)
            except FileNotFoundError:
                continue
            except OSError as error:
                if error.errno == errno.EBUSY:
                    return False
                raise
        return True


def place_for_jobs() -> Path | None:
    """The group below which this process may make groups of its own, or `None` if there is none.

    That is the group that the process is in, if systemd has delegated it or is not there to manage it, and if groups
    can be made in it and killed as one.
    """
    mount = _mount_point()
    if mount is None:
        return None
    own = mount / _own_group().lstrip("/")
    ours = _is_delegated(own) or not _systemd_runs()
    return own if ours and _can_be_parent(own) else None


def _mount_point() -> Path | None:
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        for line in file:
            fields = line.split()
            if fields[fields.index("-") + 1] == "cgroup2":
                return Path(fields[4])
    return None


def _own_group() -> str:
    with open("/proc/self/cgroup", encoding="utf-8") as file:
        for line in file:
            if line.startswith("0::"):
                return line[3:].strip()
    return "/"


def _systemd_runs() -> bool:
    return os.path.isdir("/run/systemd/system")  # as sd_booted(3) does


def _is_delegated(group: Path) -> bool:
    for attribute in _DELEGATED:
        with suppress(OSError):
            if os.getxattr(group, attribute) == b"1":
                return True
    return False


def _can_be_parent(group: Path) -> bool:
    """Try it: a read-only mount, a missing right and a kernel before 5.14 (no cgroup.kill) all show here."""
    probe = group / f"jobworker-probe-{os.getpid()}"
    try:
        probe.mkdir()
    except OSError:
        return False
    try:
        return (probe / "cgroup.kill").exists()
    finally:
        probe.rmdir()
