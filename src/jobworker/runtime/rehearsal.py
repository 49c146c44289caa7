"""A few jobs that do nothing, run by the spawner itself before it forks anything.

A process of Python writes to its memory whatever it runs: caches are filled and code is specialised by the first rounds
through it. Done once here, all supervisors share the result; else each would keep a copy of its own. Memory is laid out
with the same intent: what a supervisor allocates is to lie together and not in the gaps between what it shares.
"""

from __future__ import annotations

import gc
import os
import socket
import sys

from jobworker.core.records import Record
from jobworker.linux import process
from jobworker.runtime import children, jobdir, protocol, supervisor
from jobworker.runtime.jobdir import JobDir

ROUNDS = 10  # the interpreter specialises code that has run eight times

# CPython's small objects: pools of 16 KiB (4 KiB before 3.10), each for blocks of one size, a multiple of 16 bytes.
_POOL_BYTES = 16 * 1024
_POOL_HEADER_BYTES = 48
_BLOCK_BYTES = range(48, 513, 16)


def rehearse(state: str, cgroup: str | None) -> list[bytes]:
    """Run the rounds, each with a directory and a cgroup of its own.

    `state` is where the directories of jobs are; the rounds have theirs among those that are being deleted, where the
    next daemon clears away what is left of them. Their cgroups are in `cgroup`, if there is one. What goes wrong is
    logged, and left to the first job to report. Descriptors stay open. Keep what is returned: it fills the gaps.
    """
    try:
        _run_all(f"{state}/{jobdir.REMOVED}/rehearsal-{os.getpid()}", cgroup)
    except (OSError, ValueError) as error:
        sys.excepthook(type(error), error, error.__traceback__)
    children.unwatch()
    gc.collect()
    return _fill_gaps()


def _run_all(state: str, cgroup: str | None) -> None:
    for path in (state, f"{state}/{jobdir.STANDBY}", f"{state}/{jobdir.JOBS}"):
        os.mkdir(path, 0o700)
    wakeup = children.watch()
    supervisors, daemons = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with supervisors, daemons:
        for number in range(ROUNDS):
            name = f"{os.path.basename(state)}-{number}"
            _ask(daemons, name, None if cgroup is None else f"{cgroup}/{name}")
            supervisor.supervise_one(supervisors, state, wakeup)
            if not _remove(f"{state}/{jobdir.JOBS}/{name}"):
                break
    for path in (f"{state}/{jobdir.STANDBY}", f"{state}/{jobdir.JOBS}", state):
        os.rmdir(path)


def _ask(connection: socket.socket, name: str, cgroup: str | None) -> None:
    """Ask for a round, as a daemon does for a job."""
    output = {"mode": "COMBINED", "limit": None, "policy": "KEEP_LAST", "reserve": 1}
    output |= {"splice": True, "holes": True}
    job = {"id": name, "cgroup": cgroup, "child_policy": "KILL", "time_limit": 60.0}
    job |= {"oom_group": True, "output": output, "sync": False}
    connection.send(protocol.encode({"op": "stand_by", "id": name, "cgroup": cgroup}))
    line = os.memfd_create("spec")
    os.write(line, jobdir.line_of(jobdir.SPEC, _spec(cgroup)))
    socket.send_fds(connection, [protocol.encode({"op": "start", "job": job})], [line])
    os.close(line)


def _remove(path: str) -> bool:
    """Remove what is left of a round; whether that came to its end."""
    with JobDir.open(path) as directory:
        ended = directory.read(jobdir.EXIT) is not None
        for name in os.listdir(directory.fd):
            os.unlink(name, dir_fd=directory.fd)
    os.rmdir(path)
    return ended


def _spec(cgroup: str | None) -> Record:
    launch: Record = {
        "env": {"PATH": os.defpath},
        "uid": os.geteuid(),
        "gid": os.getegid(),
        "groups": [],
        "cgroup": cgroup,
    }
    return {
        "job": {"id": "rehearsal", "spec": {"argv": ["echo"], "cwd": "/"}},
        "launch": {**launch, "boot_id": process.boot_id(), "sync": False},
    }


def _fill_gaps() -> list[bytes]:
    """Allocate blocks of every size until each comes from a pool that was empty."""
    fillers: list[bytes] = []
    for size in _BLOCK_BYTES:
        pools: set[int] = set()
        while True:
            filler = bytes(size - bytes.__basicsize__)
            fillers.append(filler)
            pool, offset = divmod(id(filler), _POOL_BYTES)
            if pool not in pools and offset <= _POOL_HEADER_BYTES:  # the first block of a pool
                break
            pools.add(pool)
    return fillers
