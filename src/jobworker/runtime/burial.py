"""What a dead supervisor has left behind: its job's processes are ended, and the end is recorded as LOST."""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from contextlib import suppress
from datetime import UTC, datetime

from jobworker.core.job import JobEnd
from jobworker.core.records import Record, end_record
from jobworker.core.state import Cause
from jobworker.linux import process
from jobworker.linux.cgroup import Cgroup
from jobworker.runtime import gaps, jobdir
from jobworker.runtime.control import Control
from jobworker.runtime.jobdir import JobDir
from jobworker.runtime.kill import KILL_INTERVAL, MAX_KILL_INTERVAL

ID_VARIABLE = "JOBWORKER_JOB_ID"  # in the environment of every job: a mark to know its processes by
BATCH = 256  # processes that are killed at a time; each takes a descriptor, of which there may be as few as 1024


def bury(directory: JobDir, listener: socket.socket) -> None:
    """End what is left of a job whose supervisor has died, and record that. The caller holds the directory's lock."""
    control = Control(listener, select.poll())
    if directory.read(jobdir.EXIT) is None:
        spec = directory.read(jobdir.SPEC)
        if spec is None:
            raise FileNotFoundError("the job directory has no spec")
        _kill_remains(spec, directory.read(jobdir.STARTED))
        extent = gaps.extent(dir_fd=directory.fd)
        end = JobEnd(
            cause=Cause.LOST,
            end_time=datetime.now(UTC),
            output_bytes=extent.end,
            output_first_offset=extent.first,
            output_dropped_bytes=extent.dropped,
        )
        directory.write(jobdir.EXIT, {"end": end_record(end), "stop": None}, sync=True)
    control.tell("ended", **(directory.read(jobdir.EXIT) or {}))


def _kill_remains(spec: Record, started: Record | None) -> None:
    """Kill the processes of the job; those of an earlier boot are gone, and their pids are somebody else's."""
    if spec["launch"]["boot_id"] != process.boot_id():
        return
    path = spec["launch"]["cgroup"]
    if path is not None:
        _kill_cgroup(Cgroup(path))
    else:
        _kill_marked(spec["job"]["id"], started)


def _kill_cgroup(cgroup: Cgroup) -> None:
    interval = KILL_INTERVAL
    while cgroup.populated:
        with suppress(FileNotFoundError):
            cgroup.kill()
        time.sleep(interval)  # a process that the kernel does not let go of may take for ever; this one waits for it
        interval = min(interval * 2, MAX_KILL_INTERVAL)
    cgroup.remove_patiently()


def _kill_marked(job_id: str, started: Record | None) -> None:
    """Without a cgroup: the session of the first process, and whatever carries the job's mark."""
    mark = f"{ID_VARIABLE}={job_id}".encode()
    leader = None if started is None else process.ProcessId(**started["process"])
    while remains := _remains(mark, leader):
        _kill_batch(list(remains)[:BATCH], mark, leader)


def _kill_batch(pids: list[int], mark: bytes, leader: process.ProcessId | None) -> None:
    """Kill some processes of the job, and wait until they have ended."""
    pinned = _pin(pids)
    try:
        # A pid may have changed hands before it was pinned: only what is the job's still, or again, is killed.
        doomed = _remains(mark, leader) & pinned.keys()
        for pid in doomed:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(pinned[pid], signal.SIGKILL)
        for pid in doomed:
            poller = select.poll()
            poller.register(pinned[pid], select.POLLIN)  # readable when the process has ended
            poller.poll()
    finally:
        for pidfd in pinned.values():
            os.close(pidfd)


def _remains(mark: bytes, leader: process.ProcessId | None) -> set[int]:
    session = [] if leader is None else process.in_session_of(leader)
    return {*process.with_environment(mark), *session}


def _pin(pids: list[int]) -> dict[int, int]:
    """Descriptors (pidfds) of the processes that are still there, by pid."""
    pinned: dict[int, int] = {}
    for pid in pids:
        with suppress(ProcessLookupError):
            pinned[pid] = os.pidfd_open(pid)
    return pinned
