"""What a test sees of the kernel's control groups, and of a job in one of its own."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
CONTROLLERS = {"cpu", "memory", "io", "pids"}


def missing_controllers() -> str | None:
    """What keeps limits from being enforced for root here, or `None`."""
    try:
        missing = CONTROLLERS - set((ROOT / "cgroup.controllers").read_text().split())
    except OSError:
        return f"there is no cgroup v2 at {ROOT}"
    if missing:
        return f"cgroup v2 has no {', '.join(sorted(missing))} controller"
    return None if os.geteuid() == 0 else "this needs root"


def all_groups() -> list[Path]:
    """All control groups; some may go while they are looked for, and others come."""
    return [Path(folder) / name for folder, names, _ in os.walk(ROOT) for name in names]


def groups_of(job_id: str) -> list[Path]:
    """The control groups of a job, wherever the server put them."""
    return [group for group in all_groups() if job_id in group.name]


def group_of(job_id: str) -> Path:
    """The one control group of a job."""
    (group,) = groups_of(job_id)
    return group


def stat(group: Path, file: str) -> dict[str, int]:
    """A file of lines of a word and a number, such as memory.events."""
    words = (group / file).read_text().split()
    return dict(zip(words[::2], map(int, words[1::2]), strict=True))


def pids_in(group: Path) -> list[int]:
    """The processes of a group and of those below it."""
    found: list[int] = []
    for folder, _, _ in os.walk(group):
        with suppress(FileNotFoundError):
            found += map(int, (Path(folder) / "cgroup.procs").read_text().split())
    return found
