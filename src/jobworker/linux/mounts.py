"""What is mounted where."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple

from jobworker.linux import kernel_file

# Words in the names of file systems whose files have other writers than this kernel: a server in the network, other
# machines with the same disks, the host of a virtual machine.
_NETWORK = ("nfs", "cifs", "smb", "9p", "ceph", "gluster", "lustre", "beegfs", "afs", "sshfs", "s3fs", "rclone", "gpfs")
_SHARED = ("gfs2", "ocfs2", "orangefs", "pvfs", "virtiofs")


class Mount(NamedTuple):
    """A file system in the tree: its folder `root` is seen at `point`. `options` are those of the file system."""

    root: str
    point: str
    kind: str
    source: str
    options: str

    @property
    def is_remote(self) -> bool:
        """Whether its files are elsewhere, or shared with others."""
        return any(word in self.kind for word in (*_NETWORK, *_SHARED))

    @property
    def is_opaque(self) -> bool:
        """Whether its files may change behind the kernel, by a program (FUSE), too; inotify(7) does not tell then."""
        return self.is_remote or self.kind.startswith("fuse")


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
