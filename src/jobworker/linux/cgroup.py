"""Control groups, version 2: a group a job, so that nothing that the job starts can get away.

A group is used once: on some kernels everything that is born into a group after a `cgroup.kill` of it dies at birth.
"""

from __future__ import annotations

import errno
import os
import select
import time
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager, suppress

from jobworker.linux import kernel_file

# Seconds until all processes of a group stand still: it takes milliseconds, unless one of them is in a system call that
# cannot be interrupted.
FREEZE_PATIENCE = 2.0
REMOVE_PATIENCE = 5.0  # seconds that an empty group may refuse to go; it takes milliseconds, and 1 s was too short
_REMOVE_INTERVAL = 0.02  # seconds between two tries

_MODE = 0o755  # whatever the umask: runtimes size themselves by the limits of the group that they are in
_CPUS = "cpuset.cpus"
_KEYED = ("io.max", "io.weight")  # files with a line a device, of which one is written at a time
_NO_IO_LIMIT = "rbps=max wbps=max riops=max wiops=max"


class Cgroup:
    """One control group by the path of its directory."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)

    def create(self) -> None:
        """Make the group, which everybody may read. Raises `OSError`."""
        os.mkdir(self.path)
        os.chmod(self.path, _MODE)

    def open(self) -> int:
        """A descriptor of the group to clone into."""
        return os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def open_events(self) -> int:
        """A descriptor of cgroup.events that polls POLLPRI when the group becomes empty or is populated."""
        return os.open(f"{self.path}/cgroup.events", os.O_RDONLY | os.O_CLOEXEC)

    def open_memory_events(self) -> int:
        """A descriptor of memory.events that polls POLLPRI when memory was short. Raises `FileNotFoundError`."""
        return os.open(f"{self.path}/memory.events", os.O_RDONLY | os.O_CLOEXEC)

    def add(self, pid: int) -> None:
        """Move a process (0: the calling one) into the group. Slower than being born there."""
        kernel_file.write(f"{self.path}/cgroup.procs", str(pid))

    def write(self, name: str, value: str) -> None:
        """Write a file of the group, such as "memory.max". Raises `OSError` with its path."""
        if name == _CPUS and not value.strip():  # all CPUs; a group with processes does not take it (ENOSPC)
            value = kernel_file.read(f"{os.path.dirname(self.path)}/{_CPUS}.effective").decode().strip()
        kernel_file.write(f"{self.path}/{name}", value)

    @contextmanager
    def written(self, writes: Iterable[Sequence[str]]) -> Generator[None]:
        """Files of the group, each a pair of name and value, written all or none, and taken back if the block fails.

        Raises `OSError` whose `filename` is the name of the file that was refused, or of one that does not take its
        former value.
        """
        undo: list[tuple[str, str]] = []
        try:
            for name, value in writes:
                try:
                    before = _former(name, value, kernel_file.read(f"{self.path}/{name}").decode())
                    self.write(name, value)
                except OSError as error:
                    raise OSError(error.errno, error.strerror, name) from None
                undo.append((name, before))
            yield
        except OSError as error:
            problem = error
            for name, before in reversed(undo):
                try:
                    self.write(name, before)
                except OSError as worse:
                    problem = OSError(worse.errno, worse.strerror, name)
            raise problem from None

    def freeze(self) -> None:
        """Have all processes stand still, and wait until they do.

        Raises `OSError`, and `TimeoutError` if one cannot be halted, in which case all go on.
        """
        deadline = time.monotonic() + FREEZE_PATIENCE
        events = self.open_events()
        try:
            poller = select.poll()
            poller.register(events, select.POLLPRI)
            self.write("cgroup.freeze", "1")
            while b"frozen 1" not in os.pread(events, 4096, 0):  # reading it takes the event back
                if (left := deadline - time.monotonic()) <= 0:
                    self.thaw()
                    raise TimeoutError(errno.ETIMEDOUT, "a process cannot be halted", "cgroup.freeze")
                poller.poll(left * 1000)
        finally:
            os.close(events)

    def thaw(self) -> None:
        """Let the processes go on. Raises `OSError`."""
        self.write("cgroup.freeze", "0")

    def oom_kills(self) -> int:
        """Processes that were killed for want of memory, here and below; 0 where the kernel does not count them."""
        return self._memory_event("memory.events", b"oom_kill") or 0

    def oom_group_kills(self) -> int | None:
        """How often the group as a whole was killed for want of memory; `None` before Linux 5.17, which counts it.

        Not counted is what was killed because of a limit of a group below it.
        """
        return self._memory_event("memory.events.local", b"oom_group_kill")

    def _memory_event(self, name: str, event: bytes) -> int | None:
        try:
            counts = kernel_file.read(f"{self.path}/{name}").split()
        except OSError:  # no memory controller, or the group is gone
            return None
        return int(counts[counts.index(event) + 1]) if event in counts else None

    def kill(self) -> None:
        """Kill all processes of the group and of the groups below it, also those that are being forked or frozen."""
        with suppress(FileNotFoundError):  # root's job has left the group and removed it
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
        with suppress(OSError):  # most have none below them
            os.rmdir(self.path)
            return True
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

    def remove_patiently(self) -> bool:
        """Try `remove` for some seconds: the kernel lets go of an empty group lazily."""
        deadline = time.monotonic() + REMOVE_PATIENCE
        while not self.remove():
            if time.monotonic() >= deadline:
                return False
            time.sleep(_REMOVE_INTERVAL)  # the kernel tells nobody when it has let go
        return True


def _former(name: str, value: str, content: str) -> str:
    """What to write into a file with this content to take a write of `value` back."""
    if name not in _KEYED:
        return content or "\n"
    key = value.split(maxsplit=1)[0]
    line = next((line for line in content.splitlines() if line.split(maxsplit=1)[0] == key), None)
    return line or f"{key} {_NO_IO_LIMIT if name == 'io.max' else 'default'}"
