"""Where in the tree of control groups a server and its jobs may be.

The kernel allows processes in leaves only, once a group hands controllers on. So there is a group for the server's own
processes, and beside it one for the jobs:

    base                     delegated to us: a systemd unit or scope, or a container's own tree
    ├── daemon               the server's processes, or only its supervisors
    └── jobworker-…          the jobs of one state directory, which hands the controllers on
        └── <job id>         a job
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from jobworker.linux import kernel_file
from jobworker.linux.limits import FILES
from jobworker.linux.mounts import mounts

CONTROLLERS = ("cpu", "cpuset", "io", "memory", "pids")
LEAF = "daemon"  # the name of the group for the server's processes, and what DelegateSubgroup= should say

_DELEGATED = ("trusted.delegate", "user.delegate")  # set by systemd on a subtree that it leaves to a service
_MOVE_ROUNDS = 10  # processes may be forked while they are moved; each round finds those of the round before


def mount_point() -> Path | None:
    """Where the tree of version 2 is mounted, as far as this process can find its own group in it."""
    return next((Path(one.point) for one in mounts() if one.kind == "cgroup2" and one.root == "/"), None)


def group_of(pid: int | str = "self") -> Path | None:
    """The group that a process is in; `None` without version 2, or if it is outside of what can be seen of the tree."""
    mount = mount_point()
    with open(f"/proc/{pid}/cgroup", encoding="utf-8") as file:
        path = next((line[3:].strip() for line in file if line.startswith("0::")), "")
    return None if mount is None or not path or "/.." in path else mount / path.lstrip("/")


def systemd_runs() -> bool:
    """Whether systemd manages the tree, as sd_booted(3) finds it out."""
    return os.path.isdir("/run/systemd/system")


def is_delegated(group: Path) -> bool:
    """Whether systemd leaves a group to whoever runs in it."""
    for attribute in _DELEGATED:
        with suppress(OSError):
            if os.getxattr(group, attribute) == b"1":
                return True
    return False


def slice_for_scopes() -> Path | None:
    """Where the systemd that this process may ask for a scope puts it: the system's for root, else the user's own.

    `None` without one. A process can be moved there only from within the tree of that systemd.
    """
    mount, own, uid = mount_point(), group_of(), os.geteuid()
    if mount is None or own is None or not systemd_runs():
        return None
    if uid == 0:
        return mount / "system.slice"
    manager = next((group for group in own.parents if group.name == f"user@{uid}.service"), None)
    return None if manager is None else manager / "app.slice"


def has_room_for_groups(group: Path) -> bool:
    """Whether groups can be made in a group and killed as one, which a kernel before 5.14 cannot. It is tried."""
    try:
        return _files_below(group) >= {"cgroup.kill", "cgroup.freeze"}
    except OSError:  # a read-only mount, a missing right
        return False


def own_base() -> Path | None:
    """The group below which this process may make groups of its own, of itself; `None` if there is none.

    Where systemd runs, that is what it has delegated. Elsewhere the tree is ours as far as we may write to it.
    """
    own = group_of()
    if own is None:
        return None
    if systemd_runs():
        base = next((group for group in (own, own.parent) if is_delegated(group)), None)
    else:
        base = own.parent if own.name == LEAF else own
    return base if base is not None and has_room_for_groups(base) else None


def is_root(group: Path) -> bool:
    """Whether a group is the root of the whole tree, which may hold processes and hand controllers on all the same."""
    return not (group / "cgroup.type").exists()


def empty_into_leaf(base: Path) -> None:
    """Move the processes of a group into its leaf. Raises `OSError`."""
    leaf = base / LEAF
    leaf.mkdir(exist_ok=True)
    for _ in range(_MOVE_ROUNDS):
        pids = processes_in(base)
        if not pids:
            return
        move(pids, leaf)


def processes_in(group: Path) -> set[int]:
    """The processes of a group, without those of the groups below it."""
    return set(map(int, kernel_file.read(f"{group}/cgroup.procs").split()))


def move(pids: Iterable[int], group: Path) -> None:
    """Move processes into a group. Raises `OSError`."""
    for pid in pids:
        with suppress(ProcessLookupError):  # it has just ended
            kernel_file.write(f"{group}/cgroup.procs", str(pid))


def offered_controllers(group: Path) -> set[str]:
    """The controllers that a group could hand on."""
    return set(kernel_file.read(f"{group}/cgroup.controllers").decode().split())


def handed_on(group: Path) -> set[str]:
    """The controllers that a group hands on."""
    return set(kernel_file.read(f"{group}/cgroup.subtree_control").decode().split())


def take_back(group: Path, controllers: Iterable[str]) -> None:
    """Hand controllers on no longer, but for those that are in use below."""
    for controller in controllers:
        with suppress(OSError):
            kernel_file.write(f"{group}/cgroup.subtree_control", f"-{controller}")


def hand_on(group: Path, controllers: Iterable[str] = CONTROLLERS) -> dict[str, str]:
    """Hand controllers on to the groups below; for each that is not, the reason."""
    offered = offered_controllers(group)
    refused: dict[str, str] = {}
    for controller in controllers:
        if controller not in offered:
            refused[controller] = f"{group} has no {controller} controller"
            continue
        try:
            kernel_file.write(f"{group}/cgroup.subtree_control", f"+{controller}")
        except OSError as error:
            reason = os.strerror(error.errno or 0)
            refused[controller] = f"{group} cannot hand on the {controller} controller: {reason}"
    return refused


def cpus(group: Path) -> str:
    """The CPUs that processes in a group may use, as a list such as "0-3"."""
    return kernel_file.read(f"{group}/cpuset.cpus.effective").decode().strip()


def missing_limits(jobs: Path, refused: dict[str, str]) -> dict[str, str]:
    """The limits that cannot be enforced for groups below one, each with the reason.

    `refused` are reasons that are known for controllers.
    """
    try:
        files = _files_below(jobs)
    except OSError as error:
        many = error.errno == errno.EAGAIN
        why = "cgroup.max.descendants there or above allows no more" if many else os.strerror(error.errno or 0)
        return dict.fromkeys(FILES, f"no group can be made in {jobs}: {why}")
    missing: dict[str, str] = {}
    for limit, (file, _) in FILES.items():
        controller = file.partition(".")[0]
        if controller in refused:
            missing[limit] = refused[controller]
        elif file not in files:
            missing[limit] = f"this kernel has no {file}"
    if "io_weight" not in missing and not _io_is_weighed():
        missing["io_weight"] = "no disk weighs I/O: io.cost.qos of the root group does not enable it for any"
    return missing


def _files_below(group: Path) -> set[str]:
    """The files of a new group in a group. Raises `OSError`."""
    probe = group / f"probe-{os.getpid()}"
    probe.mkdir()
    try:
        return set(os.listdir(probe))
    finally:
        probe.rmdir()


def _io_is_weighed() -> bool:
    mount = mount_point()
    try:
        return mount is not None and b"enable=1" in kernel_file.read(f"{mount}/io.cost.qos")
    except OSError:  # not to be seen from inside a container
        return False
