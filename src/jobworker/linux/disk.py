"""The whole disk under a file: I/O is limited by disk, never by partition."""

from __future__ import annotations

import os
import stat

from jobworker.core.errors import LimitNotEnforceableError
from jobworker.linux import kernel_file
from jobworker.linux.mounts import mount_of

_DEVICES = "/sys/dev/block"
_LAYERS = 4  # file systems without a device of their own that may lie on each other, such as overlays

_UPPER = "upperdir="  # an option of an overlay


def find_disk(path: str) -> str:
    """The number ("8:0") of the disk that a file, a directory or a block device is on.

    It may block, on a file system that does not answer. Raises `LimitNotEnforceableError`.
    """
    try:
        device = _device_under(path, _LAYERS)
    except OSError as error:
        raise LimitNotEnforceableError("io", f"cannot find the disk under {path!r}: {error.strerror}") from None
    if device is None:
        raise LimitNotEnforceableError(
            "io", f"there is no single disk under {path!r} (a file system in memory, in the network, or of containers?)"
        )
    return _whole(device)


def _device_under(path: str, layers: int) -> int | None:
    status = os.stat(path)
    device = status.st_rdev if stat.S_ISBLK(status.st_mode) else status.st_dev
    if os.major(device):
        return device
    # Without a device of its own: btrfs has one that its mount names, an overlay has the disk of its upper layer.
    _, _, kind, source, options = mount_of(path)
    if kind == "overlay" and layers:
        upper = next((word.removeprefix(_UPPER) for word in options.split(",") if word.startswith(_UPPER)), None)
        if upper is None or not os.path.exists(upper):  # of a container, say, whose host has it elsewhere
            return None
        return _device_under(upper, layers - 1)
    if not source.startswith("/dev/") or (kind == "btrfs" and _btrfs_devices(source) != 1):
        return None
    return _device_under(source, 0) if layers else None


def _btrfs_devices(source: str) -> int:
    """How many disks the btrfs on a device has: a limit of one would not limit the others."""
    name = os.path.basename(os.path.realpath(source))
    for directory, _, _ in os.walk("/sys/fs/btrfs"):
        if os.path.basename(directory) == "devices" and name in (names := os.listdir(directory)):
            return len(names)
    return 1


def _whole(device: int) -> str:
    """The number of the disk that a device is a partition of, or its own."""
    number = f"{os.major(device)}:{os.minor(device)}"
    if os.path.exists(f"{_DEVICES}/{number}/partition"):
        return kernel_file.read(f"{os.path.realpath(f'{_DEVICES}/{number}')}/../dev").decode().strip()
    return number
