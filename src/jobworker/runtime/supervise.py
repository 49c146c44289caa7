"""The process of a supervisor: it stands by, runs a job to its end, and is free for the next one."""

from __future__ import annotations

import os
import signal
import socket
from contextlib import suppress

from jobworker.linux import sandbox, syscalls
from jobworker.runtime import children, protocol
from jobworker.runtime.launch import LaunchError
from jobworker.runtime.standby import wait_to_stand_by
from jobworker.runtime.supervisor import Supervisor

OOM_SCORE = -900  # nearly never: a supervisor that is killed loses a job, and frees little more than a megabyte
END = signal.SIGTERM  # systemd sends it to all that is in a scope when that is stopped


def prepare() -> None:
    """What every supervisor does to itself, whatever its job will be."""
    syscalls.set_child_subreaper()
    with suppress(OSError):  # needs a right that only root has
        sandbox.set_oom_score(OOM_SCORE)


def supervise(connection: socket.socket, state: str) -> None:
    """Run one job after the other for the daemon at the other end of a connection, as long as that is there.

    `state` is where the directories of jobs are.
    """
    wakeup = children.watch()
    while supervise_one(connection, state, wakeup):
        pass


def supervise_one(connection: socket.socket, state: str, wakeup: int) -> bool:
    """Stand by for a job, and run it to its end; whether this process may run another one.

    `wakeup` tells of the exits of children; see `children`.
    """
    syscalls.set_process_name("jw-free")
    lowest = os.dup(wakeup)  # the lowest number that is free, so that all descriptors from it on are the job's
    os.close(lowest)
    with suppress(LaunchError):  # it has been told
        standby = wait_to_stand_by(connection, state)
        if standby is not None and (given := standby.wait()) is not None:
            job, spec = given
            syscalls.block_signal(END)  # from now on it ends with the job
            syscalls.set_process_name(f"jw-sup {job['id']}")
            untouched = spec["launch"]["uid"] != os.geteuid()  # else the job may have changed this process, too
            if Supervisor(standby, job, wakeup).run(spec) and untouched and not standby.has_large_record:
                os.closerange(lowest, os.sysconf("SC_OPEN_MAX"))
                syscalls.unblock_signal(END)
                connection.setblocking(True)
                return protocol.tell(connection, protocol.FREE)
    return False
