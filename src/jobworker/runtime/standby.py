"""A supervisor that stands by: it has made beforehand all that does not depend on the job.

That is the job's directory and its cgroup. It belongs to the daemon that has asked for it, and ends with its
connection; once it has been given a job, it outlives the daemon.
"""

from __future__ import annotations

import errno
import os
import socket

from jobworker.core.records import Record
from jobworker.linux import syscalls
from jobworker.linux.cgroup import Cgroup
from jobworker.runtime import jobdir, protocol
from jobworker.runtime.jobdir import JobDir
from jobworker.runtime.launch import LaunchError

_LARGE_RECORD = 64 * 1024  # bytes; most have less than one KiB


class Standby:
    """What is ready for a job: its directory, locked and with a control socket, and its cgroup.

    `state` has the directories of all jobs. Raises `LaunchError`.
    """

    def __init__(self, connection: socket.socket, state: str, job_id: str, cgroup: Cgroup | None) -> None:
        self.connection = connection
        self._state = state
        self._job_id = job_id
        self._cgroup = cgroup
        self.has_large_record = False  # whose traces stay in the memory of this process
        try:
            self._make_directory()
            if cgroup is not None:
                _create(cgroup)
        except LaunchError as error:
            self._remove_cgroup()
            self._tell_failure(error)
            raise

    def wait(self) -> tuple[Record, Record] | None:
        """What to know of the job that this is for, whose directory is among those of the others now, and its record.

        `None`, and nothing is left but the directory, if there is no job, or if its record cannot be kept.
        """
        try:
            received = protocol.receive(self.connection)
            # This process may have been stopped, and whoever said that have given up.
            if received is not None and received[0]["op"] == "start" and not protocol.has_hung_up(self.connection):
                job = received[0]["job"]
                return job, self._describe(*received[1], sync=job["sync"])
        except OSError as error:
            self._tell_failure(LaunchError(error.errno or errno.EIO, "supervise"))
        self._remove_cgroup()
        return None

    def _make_directory(self) -> None:
        try:
            self.directory = JobDir.create(f"{self._state}/{jobdir.STANDBY}/{self._job_id}")
            self.directory.hold()  # until this process ends, or closes all that it has open for the job
            self.listener = self.directory.listen()
        except OSError as error:
            raise LaunchError(error.errno or errno.EIO, "supervise") from None

    def _describe(self, file: int, *, sync: bool) -> Record:
        """Put the record of the job into its directory, which then is one of a job. Raises `OSError`."""
        line = os.pread(file, os.fstat(file).st_size, 0)
        os.close(file)
        self.has_large_record = len(line) > _LARGE_RECORD
        self.directory.append(line, sync=sync)
        jobs = f"{self._state}/{jobdir.JOBS}"
        os.rename(f"{self._state}/{jobdir.STANDBY}/{self._job_id}", f"{jobs}/{self._job_id}")
        if sync:
            jobdir.sync_directory(jobs)
        return jobdir.records_of(line)[jobdir.SPEC]

    def _remove_cgroup(self) -> None:
        if self._cgroup is not None:
            self._cgroup.remove_patiently()

    def _tell_failure(self, error: LaunchError) -> None:
        failed = {"event": "failed", "errno": error.errno, "stage": error.stage, "subject": error.subject}
        protocol.tell(self.connection, failed)


def wait_to_stand_by(connection: socket.socket, state: str) -> Standby | None:
    """Stand by when the daemon asks for it; `None` if it has gone. Raises `LaunchError`."""
    while (received := protocol.receive(connection)) is not None:
        match received[0]:
            case {"op": "stand_by", "id": job_id, "cgroup": cgroup}:
                if protocol.has_hung_up(connection):  # the next daemon may have cleared away already what was left
                    return None
                syscalls.set_process_name("jw-standby")
                return Standby(connection, state, job_id, None if cgroup is None else Cgroup(cgroup))
            case request:  # it was for the job that has just ended
                protocol.tell(connection, {"reply": request.get("n"), "ok": False})
    return None


def _create(cgroup: Cgroup) -> None:
    try:
        try:
            cgroup.create()
        except FileExistsError:  # by one that has died since it was asked to stand by for the same job
            cgroup.remove_patiently()
            cgroup.create()
    except OSError as error:
        raise LaunchError(error.errno or errno.EIO, "cgroup") from None
