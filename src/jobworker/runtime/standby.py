"""A supervisor that stands by: it has made beforehand all that does not depend on the job.

That is the job's cgroup and the process in it that will execute the program. It belongs to the daemon that has asked
for it, and ends with its connection; once it has been given a job, it outlives the daemon.
"""

from __future__ import annotations

import errno
import os
import select
import socket
from contextlib import suppress

from jobworker.core.records import Record
from jobworker.linux.cgroup import Cgroup
from jobworker.runtime import protocol
from jobworker.runtime.jobdir import JobDir
from jobworker.runtime.launch import FirstProcess, LaunchError


class Standby:
    """What is ready for a job: the connection to the daemon, and the job's first process. Raises `LaunchError`."""

    def __init__(self, directory: JobDir, listener: socket.socket, cgroup: Cgroup | None) -> None:
        self._cgroup = cgroup
        self.connection = _accept(listener)  # was made before this supervisor was asked for
        try:
            if cgroup is not None:
                _create(cgroup)
            self.process = FirstProcess.fork(directory, cgroup)
        except LaunchError as error:
            self._remove_cgroup()
            failed = {"event": "failed", "errno": error.errno, "stage": error.stage, "subject": error.subject}
            with suppress(OSError):  # the daemon has gone
                self.connection.send(protocol.encode(failed), socket.MSG_NOSIGNAL)
            raise

    def wait(self) -> Record | None:
        """What to know of the job that this is for; `None`, and nothing is left, if there is none."""
        poller = select.poll()
        poller.register(self.connection, select.POLLIN)
        poller.register(self.process.connection, 0)  # for its end alone
        ready = dict(poller.poll())
        if self.process.connection.fileno() not in ready:
            with suppress(OSError, ValueError):
                packet = self.connection.recv(protocol.MAX_MESSAGE_BYTES)
                if packet and (request := protocol.decode(packet))["op"] == "start":
                    return request["job"]
        self.process.end()
        self._remove_cgroup()
        return None

    def _remove_cgroup(self) -> None:
        if self._cgroup is not None:
            self._cgroup.remove_patiently()


def _accept(listener: socket.socket) -> socket.socket:
    while True:
        connection, _ = listener.accept()
        if protocol.peer_uid(connection) in (0, os.geteuid()):
            return connection
        connection.close()


def _create(cgroup: Cgroup) -> None:
    try:
        cgroup.remove_patiently()  # that of one that has died since it was asked to stand by for the same job
        cgroup.create()
    except OSError as error:
        raise LaunchError(error.errno or errno.EIO, "cgroup") from None
