"""The control groups of this server's jobs: where they are, and which limits can be enforced there."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Generator, Iterable, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from jobworker.core.errors import InvalidArgumentError, LimitNotEnforceableError
from jobworker.core.limits import Limits, cpu_ranges
from jobworker.executors.base import CgroupMode
from jobworker.executors.scope import in_scope
from jobworker.linux import placement
from jobworker.linux.limits import FILES, Write, writes

REQUIRED = ("cpus", "memory", "io", "pids")

DELEGATE = (
    "start the server as root, as a unit with Delegate=yes and DelegateSubgroup=daemon (systemd 254), or by "
    "systemd-run --user --scope -p Delegate=yes; in a container, with a writable cgroup namespace"
)
MOUNT = "boot with systemd.unified_cgroup_hierarchy=1; in a container, with a cgroup namespace of its own"
_OFFER = (
    "have the kernel offer these controllers to version 2: boot with cgroup_no_v1=all, and with cgroup_enable=memory "
    "where the memory controller is disabled; in a container, have its runtime hand them on"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where jobs get their groups.

    `jobs` is the group that theirs are below; `None`: they get none. `home` is the group that their supervisors have to
    be in; `None`: they may stay in the server's. `missing` are the limits that cannot be enforced, with the reasons.
    """

    jobs: Path | None
    home: Path | None
    missing: Mapping[str, str]

    @property
    def enforceable(self) -> tuple[str, ...]:
        """The limits that can be enforced."""
        return tuple(limit for limit in FILES if limit not in self.missing)

    def writes(self, limits: Limits, *, cwd: str, before: Limits | None = None) -> list[Write]:
        """What puts limits of a job in force in place of others; see `linux.limits.writes`. It may block."""
        before = before or Limits()
        self.check(limits, before)
        return writes(limits, cwd=cwd, before=before)

    def check(self, limits: Limits, before: Limits) -> None:
        """Refuse limits that are asked for in place of others and cannot be enforced here.

        Raises `LimitNotEnforceableError`.
        """
        for limit in FILES:
            if getattr(limits, limit) != getattr(before, limit) and limit in self.missing:
                raise LimitNotEnforceableError(limit, self.missing[limit])
        if limits.cpuset not in (None, before.cpuset) and self.jobs is not None:
            there = placement.cpus(self.jobs)
            if not _cpus(limits.cpuset) <= _cpus(there):  # the kernel would take it, and use others
                raise LimitNotEnforceableError(
                    "cpuset", f"{limits.cpuset} is not within the CPUs of jobs here, {there}"
                )

    @property
    def lacking(self) -> tuple[str, ...]:
        """The limits that a server may require and cannot enforce."""
        return tuple(limit for limit in REQUIRED if limit in self.missing)

    def check_required(self) -> None:
        """Raise `InvalidArgumentError` unless the limits can be enforced that a server may require."""
        if lacking := self.lacking:
            reasons = "; ".join(dict.fromkeys(self.missing[limit] for limit in lacking))
            raise InvalidArgumentError(
                "cgroups",
                f"{', '.join(lacking)} cannot be limited here, as is required: {reasons}. "
                f'To have them, {remedy(lacking)}. To go without, set cgroups = "auto"',
            )


def place_name(directory: Path) -> str:
    """The name of the groups for the jobs of a state directory, the same one after every restart."""
    return f"jobworker-{hashlib.sha256(os.fsencode(directory.resolve())).hexdigest()[:12]}"


def remedy(limits: Iterable[str]) -> str:
    """What to do in order that limits can be enforced which cannot: it depends on who withholds their controllers."""
    mount = placement.mount_point()
    if mount is None:
        return MOUNT
    offered = placement.offered_controllers(mount)
    return DELEGATE if all(FILES[limit][0].partition(".")[0] in offered for limit in limits) else _OFFER


@contextmanager
def take_place(mode: CgroupMode, name: str) -> Generator[Place]:
    """Make ready the groups for the jobs of one state directory, which has this name. It may block.

    Jobs may stay when it is left. Raises `InvalidArgumentError` where limits are required that cannot be enforced.
    """
    if mode == "off":
        yield _without("control groups are off on this server")
        return
    with ExitStack() as held:
        place = _find(name, held)
        if mode == "require":
            _require(place)
        yield place


def retake(place: Place, name: str, held: ExitStack) -> None:
    """Make ready the groups of a place again which are gone, since somebody has stopped the scope that they were in.

    `held` is left as `take_place` is. It may block. Raises `OSError` if the same place cannot be had.
    """
    again = _find(name, held)
    if again != place:
        reasons = "; ".join(dict.fromkeys(again.missing.values()))
        raise OSError(errno.EIO, f"the scope of jobs has been stopped, and cannot be had again: {reasons}")


def _require(place: Place) -> None:
    try:
        place.check_required()
    except InvalidArgumentError:
        if place.jobs is not None:
            with suppress(OSError):  # jobs of an earlier server are in it
                place.jobs.rmdir()
        raise


@contextmanager
def try_place(name: str) -> Generator[Place]:
    """Make ready groups as `take_place` does, for a look: in the end all is as it was. Raises `OSError`."""
    with _putting_back(placement.own_base()), take_place("auto", name) as place:
        try:
            yield place
        finally:
            if place.jobs is not None:
                place.jobs.rmdir()


@contextmanager
def _putting_back(base: Path | None) -> Generator[None]:
    """Put the processes and the controllers of a group back to where they were."""
    if base is None:
        yield
        return
    leaf = base / placement.LEAF
    new_leaf = not leaf.exists()
    processes, controllers = placement.processes_in(base), placement.handed_on(base)
    try:
        yield
    finally:
        placement.take_back(base, placement.handed_on(base) - controllers)
        if leaf.exists():
            inside = placement.processes_in(leaf)
            placement.move(inside if new_leaf else inside & processes, base)
        if new_leaf:
            with suppress(OSError):  # there is none, or somebody else uses it by now
                leaf.rmdir()


def _find(name: str, held: ExitStack) -> Place:
    base, slice_ = placement.own_base(), placement.slice_for_scopes()
    if base is not None and (not placement.systemd_runs() or _stays(base)):
        return _settle(base, None, name)
    reason = "there is no control group of version 2 that this server may make groups in"
    if slice_ is not None:
        try:
            scope = held.enter_context(in_scope(slice_, f"{name}-jobs"))
        except OSError as error:
            reason = f"systemd gives no scope for jobs: {error.strerror}"
        else:
            return _settle(scope, scope / placement.LEAF, name)
    elif base is not None:
        reason = "systemd could not start this unit again: it needs DelegateSubgroup=daemon, of systemd 254"
    return _without(reason) if base is None else _track(base, name, reason)


def _stays(base: Path) -> bool:
    """Whether controllers may be handed on in a group of systemd's: not in one that it puts processes into again."""
    return base.suffix == ".scope" or placement.group_of() != base


def _settle(base: Path, home: Path | None, name: str) -> Place:
    """Have a group for jobs that has the controllers, with no processes in the groups above it."""
    refused: dict[str, str] = {}
    if not placement.is_root(base) and placement.offered_controllers(base):
        try:
            placement.empty_into_leaf(base)
        except OSError as error:
            reason = f"the processes in {base} cannot be moved: {os.strerror(error.errno or 0)}"
            refused = dict.fromkeys(placement.CONTROLLERS, reason)
    if not refused:
        refused = placement.hand_on(base)
    jobs = _made(base / name)
    refused |= placement.hand_on(jobs, [one for one in placement.CONTROLLERS if one not in refused])
    return Place(jobs=jobs, home=home, missing=placement.missing_limits(jobs, refused))


def _track(base: Path, name: str, reason: str) -> Place:
    """Have a group for jobs in which nothing is limited: it is for finding and for pausing them."""
    jobs = _made(base / name)
    return Place(jobs=jobs, home=None, missing=dict.fromkeys(FILES, reason))


def _made(group: Path) -> Path:
    """Have a group; jobs look into it, for their limits."""
    group.mkdir(exist_ok=True)
    group.chmod(0o755)
    return group


def _without(reason: str) -> Place:
    return Place(jobs=None, home=None, missing=dict.fromkeys(FILES, reason))


def _cpus(cpuset: str) -> set[int]:
    return {cpu for cpus in cpu_ranges(cpuset) for cpu in cpus}
