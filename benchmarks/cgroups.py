"""What a control group costs a start: a group of its own for each process, as jobs have, with nothing else of a start.

Run as a program it measures, in a process that has no threads and may fork: `python -m benchmarks.cgroups`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.figures import Measured, latency
from benchmarks.server import ROOT
from jobworker.executors.place import take_place
from jobworker.linux import syscalls
from jobworker.linux.cgroup import Cgroup

BARE = "fork, execute and wait"
BORN = "the same, born in a group of its own"
MOVED = "the same, moved into a group of its own"
OTHERS = 500

_TIMES = 40


def measure() -> Iterator[Measured]:
    """One round; nothing where groups cannot be made."""
    measured = subprocess.run([sys.executable, "-m", __name__], cwd=ROOT, stdout=subprocess.PIPE, check=True)
    for name, seconds in json.loads(measured.stdout).items():
        yield from latency(name, seconds, beside=None if name == BARE else BARE)


def _measure(jobs: Path) -> dict[str, list[float]]:
    found = {
        BARE: _times(os.fork, None),
        BORN: _times(lambda: _clone(jobs / "one"), Cgroup(jobs / "one")),
        MOVED: _times(lambda: _fork_and_move(jobs / "one"), Cgroup(jobs / "one")),
    }
    with _others(jobs):
        found[f"{BORN}, beside {OTHERS} others"] = _times(lambda: _clone(jobs / "one"), Cgroup(jobs / "one"))
    return found


def _times(fork: Callable[[], int], group: Cgroup | None) -> list[float]:
    return [_time(fork, group) for _ in range(_TIMES)]


def _time(fork: Callable[[], int], group: Cgroup | None) -> float:
    began = time.perf_counter()
    if group is not None:
        group.create()
    pid = fork()
    if pid == 0:
        os.execv("/bin/true", ["true"])  # noqa: S606 - as jobs are
    os.waitpid(pid, 0)
    if group is not None:
        while not group.remove():
            pass
    return time.perf_counter() - began


def _clone(path: Path) -> int:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return syscalls.clone_into_cgroup(fd)
    finally:
        os.close(fd)


def _fork_and_move(path: Path) -> int:
    pid = os.fork()
    if pid == 0:
        Cgroup(path).add(0)
    return pid


@contextmanager
def _others(jobs: Path) -> Generator[None]:
    """Groups with a process each, which sleeps."""
    groups = [Cgroup(jobs / f"other-{number}") for number in range(OTHERS)]
    pids: list[int] = []
    try:
        for group in groups:
            group.create()
            pid = _clone(Path(group.path))
            if pid == 0:
                os.execv("/bin/sleep", ["sleep", "600"])  # noqa: S606 - the same
            pids.append(pid)
        yield
    finally:
        for group in groups[: len(pids)]:
            group.kill()
        for pid in pids:
            os.waitpid(pid, 0)
        for group in groups:
            while not group.remove():  # no error for one that is not there
                pass


def main() -> None:
    """Measure where this server's jobs would have their groups, and print the seconds as JSON."""
    with take_place("auto", f"jobworker-bench-{os.getpid()}") as place:
        print(json.dumps({} if place.jobs is None else _measure(place.jobs)))
        if place.jobs is not None:
            place.jobs.rmdir()


if __name__ == "__main__":
    main()
