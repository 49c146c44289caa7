"""What the kernel can do, and where the control groups of jobs would be."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from jobworker.auth.roles import Role
from jobworker.core.errors import InvalidArgumentError
from jobworker.core.limit_policy import LimitPolicy
from jobworker.executors.base import CgroupMode
from jobworker.executors.place import DELEGATE, MOUNT, REQUIRED, Place, place_name, remedy, try_place
from jobworker.executors.user import JobUser
from jobworker.linux import kernel_file, placement
from jobworker.linux.cgroup import Cgroup
from jobworker.linux.limits import FILES
from jobworker.linux.syscalls import clone_into_cgroup
from jobworker.server.doctor.finding import Finding, error, ok, skipped, warning
from jobworker.server.limits import RoleLimits

_GROUPS_KILLED = (5, 14)  # the first kernel with cgroup.kill
_CONTROLLERS = {
    "cpu": "cpus",
    "memory": "memory",
    "io": "io",
    "pids": "pids",
    "cpuset": "cpuset",
}  # and a limit of each
_PRESSURE = "/proc/pressure/cpu"
_OFF = "control groups are off (cgroups)"
_TAKE_OUT = "take them out of the file"
_MOVE = "move these processes to another group, or end them"
_MAX_LISTED = 5
_HAVE = "have the controllers that are missing"

_Lacking = Callable[[str, str, str | None], Finding]  # error or warning


def examine_kernel() -> Iterator[Finding]:
    """The kernel itself."""
    release = os.uname().release
    if _version(release) < _GROUPS_KILLED:
        yield warning("kernel", f"Linux {release} cannot kill a control group as one", "use Linux 5.14 or newer")
    else:
        yield ok("kernel", f"Linux {release}")
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError as problem:
        yield error("pidfd", f"processes cannot be held: {problem.strerror}", "use Linux 5.3 or newer")
    else:
        yield ok("pidfd", "processes can be held by a descriptor")
    try:
        kernel_file.read(_PRESSURE)
    except OSError as problem:
        yield warning(
            "pressure",
            f"what jobs wait for is not measured ({_PRESSURE}: {problem.strerror})",
            "boot with psi=1, on a kernel with CONFIG_PSI",
        )
    else:
        yield ok("pressure", "what jobs wait for is measured (PSI)")


def examine_job_user(name: str | None) -> Iterator[Finding]:
    """Whom jobs run as, and whether the program can be executed that starts them."""
    if os.access(sys.executable, os.X_OK, effective_ids=True):
        yield ok("interpreter", f"{sys.executable} can be executed")
    else:
        remedy = "install jobworker with a Python that is outside of other users' homes"
        yield error("interpreter", f"this user may not execute {sys.executable}", remedy)
    try:
        yield ok("job_user", f"jobs run as {JobUser.find(name).name!r}")
    except InvalidArgumentError as problem:
        yield error("job_user", str(problem))


def examine_cgroups(
    mode: CgroupMode, policies: Mapping[Role, LimitPolicy], state_dir: Path | None
) -> Iterator[Finding]:
    """The control groups, which are tried in a group that goes again. It may block."""
    configured = RoleLimits(policies=policies).requested()
    if mode == "off":
        yield from (skipped(name, _OFF) for name in ("cgroup_mount", "cgroup_delegation"))
        yield from (skipped(_controller(name), _OFF) for name in _CONTROLLERS)
        yield _without_limits(configured)
        yield skipped("clone_into_cgroup", _OFF)
        return
    mount = placement.mount_point()
    lacking = error if mode == "require" else warning
    if mount is None:
        yield lacking("cgroup_mount", "control groups of version 2 are not mounted", MOUNT)
    else:
        yield ok("cgroup_mount", f"control groups of version 2 are at {mount}")
    try:
        with try_place(f"jobworker-doctor-{os.getpid()}") as place:
            intruders = None if state_dir is None else _intruders(place, place_name(state_dir))
            yield _delegation(place, lacking) if intruders is None else lacking("cgroup_delegation", intruders, _MOVE)
            yield from _controllers(place, lacking)
            yield _limits(place, mode, configured)
            yield _no_groups() if place.jobs is None else _clone(place.jobs)
    except OSError as problem:
        where = f"{problem.filename}: " if problem.filename else ""
        yield error("cgroup_delegation", f"no groups can be made: {where}{problem.strerror}", DELEGATE)


def _delegation(place: Place, lacking: _Lacking) -> Finding:
    name = "cgroup_delegation"
    if reason := _reason_for_all(place):
        groups = "jobs get no groups" if place.jobs is None else f"groups in {place.jobs.parent} limit nothing"
        return lacking(name, f"{groups}: {reason}", DELEGATE)
    assert place.jobs is not None  # noqa: S101 -- that would be a reason
    if place.home is not None:
        return ok(name, f"jobs get their groups in a scope of systemd's in {place.jobs.parent.parent}")
    return ok(name, f"jobs get their groups in {place.jobs.parent}")


def _intruders(place: Place, name: str) -> str | None:
    """The processes that keep the group of this name, which is for groups of jobs, from handing controllers on."""
    if place.jobs is None or not place.enforceable:
        return None
    group = Path(str(place.jobs).replace(place.jobs.name, name))
    try:
        pids = placement.processes_in(group)
    except OSError:  # there is none yet
        return None
    listed = ", ".join(map(str, sorted(pids)[:_MAX_LISTED]))
    return f"processes are in {group}, which is for the groups of jobs: {listed}" if pids else None


def _reason_for_all(place: Place) -> str | None:
    """Why nothing can be limited, if that is due to the place and not to its controllers."""
    reasons = set(place.missing.values())
    return None if place.enforceable or len(reasons) > 1 else reasons.pop()


def _controllers(place: Place, lacking: _Lacking) -> Iterator[Finding]:
    for controller, limit in _CONTROLLERS.items():
        name = _controller(controller)
        say = lacking if limit in REQUIRED else warning
        if limit not in place.missing:
            yield ok(name, f"{controller} can be limited")
        elif _reason_for_all(place):
            yield say(name, "as cgroup_delegation says", None)
        else:
            yield say(name, place.missing[limit], remedy([limit]))


def _limits(place: Place, mode: CgroupMode, configured: tuple[str, ...]) -> Finding:
    """What the rows before mean for jobs."""
    name = "limits"
    lacking = ", ".join(place.lacking)
    if lacking and mode == "require":
        return error(
            name, f"required, and cannot be enforced: {lacking}", f'{_HAVE}, or set cgroups = "auto" to go without'
        )
    if unenforced := ", ".join(_explained(limit, place) for limit in configured if limit in place.missing):
        say = error if mode == "require" else warning
        return say(name, f"configured, and cannot be enforced: {unenforced}", f"{_TAKE_OUT}, or {_HAVE}")
    missing = ", ".join(limit for limit in FILES if limit in place.missing)
    detail = f"refused when a job asks for them: {missing}" if missing else "all can be enforced"
    return warning(name, detail, _HAVE) if lacking else ok(name, detail)


def _explained(limit: str, place: Place) -> str:
    """A limit that cannot be enforced, with the reason if it is not that of its controller, which has told it."""
    controller = FILES[limit][0].partition(".")[0]
    reason = place.missing[limit]
    return limit if reason == place.missing.get(_CONTROLLERS[controller]) else f"{limit} ({reason})"


def _without_limits(configured: tuple[str, ...]) -> Finding:
    if not configured:
        return skipped("limits", _OFF)
    detail = f"configured, and not enforced, since {_OFF}: {', '.join(configured)}"
    return warning("limits", detail, f'set cgroups = "auto" or "require", or {_TAKE_OUT}')


def _no_groups() -> Finding:
    return skipped("clone_into_cgroup", "there are no groups")


def _clone(jobs: Path) -> Finding:
    name = "clone_into_cgroup"
    if len(os.listdir("/proc/self/task")) > 1:  # noqa: PTH208 -- a listing of the kernel's
        return skipped(name, "it can be tried only by a process with a single thread")
    group = Cgroup(jobs / "probe")
    group.create()
    try:
        descriptor = group.open()
        try:
            pid = clone_into_cgroup(descriptor)
        finally:
            os.close(descriptor)
        if pid == 0:
            os._exit(0)  # the child of clone3, which may do nothing else
        os.waitpid(pid, 0)
    except OSError as problem:
        return warning(
            name,
            f"jobs cannot be born in their groups ({problem.strerror}), and are moved there before they execute",
            "use Linux 5.7 or newer; in a container, allow clone3 (seccomp)",
        )
    finally:
        group.remove()
    return ok(name, "jobs are born in their groups")


def _controller(name: str) -> str:
    return f"controller_{name}"


def _version(release: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", release)[:2]))
