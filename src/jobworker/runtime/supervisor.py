"""The supervisor: starts one job, keeps its output, and records its end, whatever becomes of the daemon.

It owns the pipe, the wait and the exit record. It is single-threaded and the only one to decide: a stop that arrives
is either before the end or after it, never both.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import socket
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from jobworker.core.job import DEFAULT_GRACE, JobEnd, StopRequest
from jobworker.core.records import Record, end_record, stop_from, stop_record, time_text
from jobworker.core.spec import ChildPolicy
from jobworker.core.state import Cause
from jobworker.linux import process, sandbox, syscalls
from jobworker.linux.cgroup import Cgroup
from jobworker.runtime import jobdir
from jobworker.runtime.control import Control
from jobworker.runtime.jobdir import JobDir
from jobworker.runtime.launch import LaunchError, Program, launch
from jobworker.runtime.output import OutputPump
from jobworker.runtime.protocol import Message
from jobworker.runtime.tree import CgroupTree, DescendantTree, Tree

OOM_SCORE = -900  # nearly never: a supervisor that is killed loses a job, and frees less than a megabyte
# Seconds between kills: the first ones for processes that are born while their parents are being killed, which only
# happens without a cgroup; then longer and longer, for one that the kernel does not let go of.
KILL_INTERVAL = 0.02
MAX_KILL_INTERVAL = 1.0
RECORD_RETRY = 1.0  # seconds between tries to write the end on a disk that is full, until somebody makes room
MAX_POLL = 3600.0  # seconds; poll(2) counts milliseconds in an int, which is 24 days, and time limits go further
MAX_SUBJECT_CHARS = 1000  # of a program that could not be started: the message has to fit into a packet
CGROUP_PATIENCE = 5.0  # seconds that an empty cgroup may refuse to go, as the kernel lets go of it lazily


def supervise(directory: JobDir, listener: socket.socket) -> None:
    """Run the job of a directory to its end. The caller holds the directory's lock until it exits."""
    syscalls.set_child_subreaper()
    with suppress(OSError):  # needs a right that only root has
        sandbox.set_oom_score(OOM_SCORE)
    record = directory.read(jobdir.SPEC)
    if record is None:
        raise FileNotFoundError(errno.ENOENT, "the job directory has no spec", jobdir.SPEC)
    syscalls.set_process_name(f"jw-sup {record['job']['id']}")
    Supervisor(directory, listener, record).run()


class Supervisor:
    """One job from its start to its end."""

    def __init__(self, directory: JobDir, listener: socket.socket, record: Record) -> None:
        self._directory = directory
        self._spec: Record = record["job"]["spec"]  # checked when it was made; a `JobSpec` would cost every supervisor
        self._launch: Record = record["launch"]
        self._sync: bool = self._launch["sync"]
        self._poller = select.poll()
        self._control = Control(listener, self._poller, self._handle_request)
        self._wakeup = _wake_on_child_exit()
        self._poller.register(self._wakeup, select.POLLIN)
        self._cgroup_events = -1
        cgroup = self._launch["cgroup"]
        self._tree: Tree = DescendantTree() if cgroup is None else CgroupTree(Cgroup(cgroup))
        self._leader = 0
        self._leader_code: int | None = None  # as subprocess has it: an exit code, or a signal's number negated
        self._cause: Cause | None = None  # set by who ends the job first; `None` while nobody has
        self._stop: StopRequest | None = None
        self._time_limit_at: float | None = None  # deadlines are of time.monotonic()
        self._kill_at: float | None = None
        self._killing = False
        self._kill_interval = KILL_INTERVAL

    def run(self) -> None:
        """Start, watch and end the job."""
        try:
            self._start()
        except (LaunchError, OSError) as error:
            self._report_failure(error)
            return
        while not self._over():
            self._wait()
        self._finish()

    # Start

    def _start(self) -> None:
        launch_ = self._launch
        self._pump = OutputPump(self._directory.create_output(), uid=launch_["uid"])
        if self._tree.cgroup is not None:
            self._tree.cgroup.create()
        program = Program(
            argv=self._spec["argv"],
            env=launch_["env"],
            cwd=self._spec["cwd"],
            identity=sandbox.Identity(launch_["uid"], launch_["gid"], launch_["groups"]),
        )
        self._leader = launch(program, output=self._pump.write_end, cgroup=self._tree.cgroup)
        self._pump.close_write_end()
        self._poller.register(self._pump.read_end, select.POLLIN)
        if self._tree.cgroup is not None:
            self._cgroup_events = self._tree.cgroup.open_events()
            self._poller.register(self._cgroup_events, select.POLLPRI)
        if self._spec["time_limit"] is not None:
            self._time_limit_at = time.monotonic() + self._spec["time_limit"]
        started = time_text(datetime.now(UTC))
        identity = process.identify(self._leader)
        self._directory.write(jobdir.STARTED, {"time": started, "process": identity._asdict()}, sync=self._sync)
        self._control.tell("started", time=started)
        with suppress(OSError):  # full already: then the end has to wait for room
            self._directory.reserve(jobdir.EXIT)

    def _report_failure(self, error: LaunchError | OSError) -> None:
        """Leave nothing of the job, then say why it could not be started."""
        if self._leader:
            self._tree.kill()
            while not self._tree.empty:
                self._reap()
                self._tree.kill()
                self._poller.poll(KILL_INTERVAL * 1000)
        if self._tree.cgroup is not None:
            self._remove_cgroup(self._tree.cgroup)
        with suppress(FileNotFoundError):
            self._directory.delete_output()
        stage = error.stage if isinstance(error, LaunchError) else "prepare"
        subject = self._spec["cwd"] if stage == "chdir" else self._spec["argv"][0]
        self._control.tell("failed", errno=error.errno or errno.EIO, stage=stage, subject=subject[:MAX_SUBJECT_CHARS])

    # Watch

    def _over(self) -> bool:
        """Look at what has happened, do what it calls for, and say whether the job is over."""
        self._reap()
        now = time.monotonic()
        if self._cause is None:
            if self._leader_code is not None and self._spec["child_policy"] == ChildPolicy.KILL:
                self._killing = True
            elif self._time_limit_at is not None and now >= self._time_limit_at:
                self._begin_end(Cause.TIMED_OUT, signal.SIGTERM, DEFAULT_GRACE)
        if self._kill_at is not None and now >= self._kill_at:
            self._killing = True
        if self._leader_code is not None and self._tree.empty:
            return True
        if self._killing:
            self._tree.kill()
            self._kill_interval = min(self._kill_interval * 2, MAX_KILL_INTERVAL)
        return False

    def _wait(self) -> None:
        """Wait for the next event or deadline, and serve it."""
        for fd, _ in self._poller.poll(self._timeout()):
            if fd == self._pump.read_end:
                self._pump.pump()
                if self._pump.ended:
                    self._poller.unregister(fd)
            elif fd == self._wakeup:
                with suppress(BlockingIOError):
                    os.read(fd, 4096)
            elif fd == self._cgroup_events:
                os.pread(fd, 4096, 0)  # reading it takes the event back
            else:
                self._control.handle(fd)

    def _timeout(self) -> float | None:
        """Milliseconds until the next deadline; `None` if there is none."""
        if self._killing:
            return self._kill_interval * 1000
        at = self._time_limit_at if self._kill_at is None else self._kill_at
        return None if at is None else min(max(0.0, at - time.monotonic()), MAX_POLL) * 1000 + 1

    def _reap(self) -> None:
        """Take the exit statuses of the first process and of the orphans of the job."""
        with suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                if pid == self._leader:
                    self._leader_code = os.waitstatus_to_exitcode(status)

    # Requests

    def _handle_request(self, request: Message) -> bool:
        """Do what a daemon asks for; `False` if the job has ended."""
        if self._over_or_ending_by_itself():
            return False
        match request["op"]:
            case "stop":
                self._handle_stop(stop_from(request["stop"]))
            case "signal":
                self._signal_group(request["signal"])
            case _:
                raise ValueError(f"unknown request {request['op']!r}")
        return True

    def _over_or_ending_by_itself(self) -> bool:
        """Whether the job's end is decided and no stop can be the reason for it."""
        self._reap()
        if self._cause is Cause.STOPPED:
            return False
        return self._leader_code is not None and (self._spec["child_policy"] == ChildPolicy.KILL or self._tree.empty)

    def _handle_stop(self, stop: StopRequest) -> None:
        if self._cause is None:
            self._stop = stop
            self._control.tell("stopping", stop=stop_record(stop))
            self._begin_end(Cause.STOPPED, stop.signal, stop.grace)
        else:  # it is ending: a second request can only hurry it
            self._hurry(stop.grace)

    def _signal_group(self, number: int) -> None:
        if self._leader_code is None:
            os.killpg(self._leader, number)
        else:  # its pid may be somebody else's by now, unless its group lives on
            self._tree.signal(number, group=self._leader)

    def _begin_end(self, cause: Cause, number: int, grace: timedelta) -> None:
        self._cause = cause
        self._kill_at = time.monotonic() + grace.total_seconds()
        if grace:
            self._tree.signal(signal.SIGCONT)  # first, so that a process that is stopped sees the signal
            self._tree.signal(number)

    def _hurry(self, grace: timedelta) -> None:
        kill_at = time.monotonic() + grace.total_seconds()
        self._kill_at = kill_at if self._kill_at is None else min(self._kill_at, kill_at)

    # End

    def _finish(self) -> None:
        self._pump.drain()
        for fd in (self._pump.read_end, self._wakeup, self._cgroup_events):
            with suppress(KeyError, ValueError):  # at the end of the output it is unregistered already; no cgroup is -1
                self._poller.unregister(fd)
        if self._sync:
            with suppress(OSError):  # a disk that fails: the end is known all the same, and has to be told
                os.fsync(self._pump.file)
        code = self._leader_code
        cause = self._cause or (Cause.SIGNALED if code is not None and code < 0 else Cause.EXITED)
        end = JobEnd(
            cause=cause,
            end_time=datetime.now(UTC),
            exit_code=code if code is not None and code >= 0 else None,
            signal=-code if code is not None and code < 0 else None,
            output_bytes=self._pump.size,
            output_dropped_bytes=self._pump.dropped,
        )
        stop = None if self._stop is None else stop_record(self._stop)
        record = {"end": end_record(end), "stop": stop}
        while not self._try_to_record(record):
            self._control_for(RECORD_RETRY)
        self._control.tell("ended")
        if self._tree.cgroup is not None:
            self._remove_cgroup(self._tree.cgroup)

    def _try_to_record(self, record: Record) -> bool:
        try:
            self._directory.write(jobdir.EXIT, record, sync=self._sync, sync_content=True)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
                raise
            return False
        return True

    def _control_for(self, seconds: float) -> None:
        """Serve the control socket for a while."""
        for fd, _ in self._poller.poll(seconds * 1000):
            self._control.handle(fd)

    def _remove_cgroup(self, cgroup: Cgroup) -> None:
        deadline = time.monotonic() + CGROUP_PATIENCE
        while not cgroup.remove() and time.monotonic() < deadline:
            time.sleep(KILL_INTERVAL)  # the kernel tells nobody when it has let go of an empty group


def _wake_on_child_exit() -> int:
    """A descriptor that polls readable after a child has exited."""
    read_end, write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, _note)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
    return read_end


def _note(_number: int, _frame: object) -> None:
    """Do nothing: the interpreter writes to the wake-up descriptor only for signals that have a handler."""
