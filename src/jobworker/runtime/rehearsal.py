"""A few jobs that do nothing, run by the spawner itself before it forks anything.

A process of Python writes to its memory whatever it runs: caches are filled and code is specialised by the first rounds
through it. Done once here, all supervisors share the result; else each would keep a copy of its own. Memory is laid out
with the same intent: what a supervisor allocates is to lie together and not in the gaps between what it shares.
"""

from __future__ import annotations

import gc
import os
import traceback

from jobworker.core.records import Record
from jobworker.linux import process
from jobworker.runtime import children, jobdir, protocol, supervisor
from jobworker.runtime.jobdir import JobDir

ROUNDS = 10  # the interpreter specialises code that has run eight times

# CPython's small objects: pools of 16 KiB (4 KiB before 3.10), each for blocks of one size, a multiple of 16 bytes.
_POOL_BYTES = 16 * 1024
_POOL_HEADER_BYTES = 48
_BLOCK_BYTES = range(48, 513, 16)


def rehearse(scratch: str, cgroup: str | None) -> list[bytes]:
    """Run the rounds, each with a directory and a cgroup of its own in what is given.

    What goes wrong is logged, and left to the first job to report. Descriptors stay open. Keep what is returned: it
    fills the gaps.
    """
    try:
        for number in range(ROUNDS):
            name = f"rehearsal-{os.getpid()}-{number}"
            if not _run(f"{scratch}/{name}", None if cgroup is None else f"{cgroup}/{name}"):
                break
    except (OSError, ValueError):
        traceback.print_exc()
    children.unwatch()
    gc.collect()
    return _fill_gaps()


def _run(path: str, cgroup: str | None) -> bool:
    """One round, which leaves nothing; whether it came to its end."""
    with JobDir.create(path) as directory:
        directory.write(jobdir.SPEC, _spec(cgroup), sync=False)
        with directory.listen() as listener, directory.connect() as connection:
            output = {"mode": "COMBINED", "limit": None, "policy": "KEEP_LAST", "reserve": 1}
            output |= {"splice": True, "holes": True}
            job = {"id": "rehearsal", "cgroup": cgroup, "child_policy": "KILL", "time_limit": 60.0}
            job |= {"oom_group": True, "output": output, "sync": False}
            connection.send(protocol.encode({"op": "start", "job": job}))
            supervisor.supervise(directory, listener, cgroup)
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
