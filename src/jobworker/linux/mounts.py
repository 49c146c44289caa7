"""What is mounted where."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple

from jobworker.linux import kernel_file


class Mount(NamedTuple):
    """A file system in the tree: its folder `root` is seen at `point`. `options` are those of the file system."""

    root: str
    point: str
    kind: str
    source: str
    options: str


def mounts() -> Iterator[Mount]:
    """All mounts that this process sees, in the order in which they were made; see proc(5), mountinfo."""
    for line in kernel_file.read("/proc/self/mountinfo").decode(errors="surrogateescape").splitlines():
        place, _, system = line.partition(" - ")
        _, _, _, root, point, *_ = place.split(" ")
        kind, source, *options = system.split(" ", 2)
        yield Mount(_unescape(root), _unescape(point), kind, _unescape(source), _unescape("".join(options)))


def mount_of(path: str) -> Mount:
    """The mount that a path is on: of those with the longest mount point the last one, which hides the others.

    Empty where the root of this process is not a mount, as in some chroots.
    """
    path = os.path.realpath(path)
    above = (one for one in mounts() if path == one.point or path.startswith(one.point.rstrip("/") + "/"))
    found = Mount("", "", "", "", "")
    for one in above:
        if len(one.point) >= len(found.point):
            found = one
    return found


def _unescape(text: str) -> str:
    for escaped, plain in ((r"\040", " "), (r"\011", "\t"), (r"\012", "\n"), (r"\134", "\\")):
        text = text.replace(escaped, plain)
    return text
