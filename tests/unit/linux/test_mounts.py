"""What is mounted where."""

from __future__ import annotations

import pytest

from jobworker.linux import kernel_file
from jobworker.linux.mounts import Mount, mount_of
from jobworker.linux.placement import mount_point

MOUNTINFO = rb"""22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:26 /../up /sys/fs/cgroup/outer rw - cgroup2 cgroup2 rw
31 22 0:26 / /sys/fs/cgroup rw,nosuid shared:4 master:2 - cgroup2 cgroup2 rw
40 22 0:40 / /data rw - tmpfs hidden rw
41 22 0:41 /@home /data rw - btrfs /dev/disk/my\040disk rw,subvol=/@home
42 41 0:42 / /data/a\040b rw - tmpfs  rw
"""


@pytest.fixture(autouse=True)
def _mounts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tree as the kernel describes it."""

    def read(_path: str) -> bytes:
        return MOUNTINFO

    monkeypatch.setattr(kernel_file, "read", read)


def test_a_path_is_on_the_last_mount_at_its_longest_mount_point() -> None:
    """A mount hides those before it at the same place; names may have spaces, and a source may be empty."""
    assert mount_of("/etc/passwd").kind == "ext4"
    assert mount_of("/database").kind == "ext4"
    assert mount_of("/data/x") == Mount("/@home", "/data", "btrfs", "/dev/disk/my disk", "rw,subvol=/@home")
    assert mount_of("/data/a b").kind == "tmpfs"


@pytest.mark.parametrize(
    "kinds, expected",
    [
        ("ext4 xfs btrfs tmpfs ramfs overlay zfs f2fs", (False, False)),
        ("nfs nfs4 cifs smb3 9p ceph lustre fuse.sshfs fuse.glusterfs virtiofs gfs2", (True, True)),
        ("fuse fuseblk fuse.fuse-overlayfs", (False, True)),
    ],
)
def test_file_systems_that_the_kernel_does_not_know_all_of(kinds: str, expected: tuple[bool, bool]) -> None:
    """Those that others write to, and those of programs."""
    for kind in kinds.split():
        mount = Mount("/", "/data", kind, "source", "rw")
        assert (mount.is_remote, mount.is_opaque) == expected, kind


def test_the_tree_of_control_groups_is_the_mount_of_all_of_it() -> None:
    """Not one of a part, in which a process may not find its own group."""
    assert str(mount_point()) == "/sys/fs/cgroup"
