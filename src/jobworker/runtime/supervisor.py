"""The supervisor: starts a job, keeps its output, and records its end, whatever becomes of the daemon.

There is one a job; when that is over, it may be the next one's. It owns the pipe, the wait and the exit record. It is
single-threaded and the only one to decide: a stop that arrives is either before the end or after it, never both.
"""

from __future__ import annotations

import errno
import os
import resource
import select
import signal
import socket
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from jobworker.core.job import DEFAULT_GRACE, JobEnd, StopRequest
from jobworker.core.output import OverflowPolicy
from jobworker.core.records import Record, end_record, stop_from, stop_record
from jobworker.core.spec import ChildPolicy
from jobworker.core.state import Cause
from jobworker.core.usage import Usage
from jobworker.linux import process, sandbox, syscalls, usage
from jobworker.linux.cgroup import Cgroup
from jobworker.runtime import children, jobdir, protocol
from jobworker.runtime.control import Control
from jobworker.runtime.kill import Kill
from jobworker.runtime.launch import Launch, LaunchError
from jobworker.runtime.oom import OomWatch
from jobworker.runtime.output import OutputPipe, OutputPump, open_pipes
from jobworker.runtime.protocol import Message
from jobworker.runtime.standby import Standby, wait_to_stand_by
from jobworker.runtime.tree import CgroupTree, DescendantTree, Tree

OOM_SCORE = -900  # nearly never: a supervisor that is killed loses a job, and frees little more than a megabyte
END = signal.SIGTERM  # systemd sends it to all that is in a scope when that is stopped
RECORD_RETRY = 1.0  # seconds between tries to write the end on a disk that is full, until somebody makes room
MAX_POLL = 3600.0  # seconds; poll(2) counts milliseconds in an int, which is 24 days, and time limits go further

# Replies to requests; see `protocol`.
DONE: Message = {"ok": True}
ENDED: Message = {"ok": False}


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


class Supervisor:
    """One job from its start to its end."""

    def __init__(self, standby: Standby, job: Record, wakeup: int) -> None:
        self._directory = standby.directory
        self._sync: bool = job["sync"]
        self._waits_for_children: bool = job["child_policy"] == ChildPolicy.WAIT
        self._oom_group: bool = job["oom_group"]
        self._output: Record = job["output"]
        self._stops_over_limit: bool = job["output"]["policy"] == OverflowPolicy.STOP
        self._pipes: dict[int, OutputPipe] = {}  # by their read ends; those that have not ended
        self._poller = select.poll()
        self._control = Control(standby.listener, self._poller, standby.connection)
        self._wakeup = wakeup
        self._poller.register(self._wakeup, select.POLLIN)
        self._cgroup_events = -1
        self._oom: OomWatch | None = None  # where the job has a cgroup, from its start on
        cgroup = job["cgroup"]
        self._tree: Tree = DescendantTree() if cgroup is None else CgroupTree(Cgroup(cgroup))
        self._leader = 0
        self._leader_code: int | None = None  # as subprocess has it: an exit code, or a signal's number negated
        self._cause: Cause | None = None  # set by who ends the job first; `None` while nobody has
        self._stop: StopRequest | None = None
        self._started_at = 0.0  # this and all deadlines are of time.monotonic()
        self._time_limit: float | None = job["time_limit"]  # seconds; of a paused job those that are left
        self._time_limit_at: float | None = None  # `None` if there is none, or while the job is paused
        self._kill_at: float | None = None
        self._kill: Kill | None = None  # once it has begun
        self._paused = False

    def run(self, spec: Record) -> bool:
        """Start, watch and end the job; whether nothing of it is left in this process, and the daemon is there."""
        try:
            self._start(spec)
        except LaunchError as error:
            self._report_failure(error)
            return False
        except OSError as error:
            self._report_failure(LaunchError(error.errno or errno.EIO, "prepare"))
            return False
        while not self._over():
            self._wait()
        return self._finish()

    # Start

    def _start(self, spec: Record) -> None:
        cgroup = self._tree.cgroup
        self._pump = OutputPump(self._directory, self._output, sync=self._sync)
        pipes = open_pipes(self._output["mode"])
        if cgroup is not None:
            self._watch(cgroup)
        outputs = pipes[0].write_end, pipes[-1].write_end
        self._leader, started = Launch(self._directory, spec, cgroup).execute(outputs)
        self._started_at = time.monotonic()
        self._control.tell("started", time=started)
        for pipe in pipes:
            pipe.close_write_end()
            self._pipes[pipe.read_end] = pipe
            self._poller.register(pipe.read_end, select.POLLIN)
        self._start_clock()
        with suppress(OSError):  # full already: then the end has to wait for room
            self._directory.reserve()

    def _watch(self, cgroup: Cgroup) -> None:
        """Be told of what happens to the group; not after the start, for root's program may remove its group."""
        self._cgroup_events = cgroup.open_events()
        self._poller.register(self._cgroup_events, select.POLLPRI)
        self._oom = OomWatch(cgroup, self._poller, together=self._oom_group)

    def _report_failure(self, error: LaunchError) -> None:
        """Leave nothing of the job, then say why it could not be started."""
        if self._tree.cgroup is not None:
            if self._tree.cgroup.oom_kills():  # it has killed the process before that could execute the program
                error = LaunchError(errno.ENOMEM, "limit", "memory.max")
            self._tree.cgroup.remove_patiently()
        with suppress(FileNotFoundError):
            self._directory.delete_output()
        self._control.tell("failed", errno=error.errno, stage=error.stage, subject=error.subject)

    # Watch

    def _over(self) -> bool:
        """Look at what has happened, do what it calls for, and say whether the job is over."""
        self._reap()
        now = time.monotonic()
        if self._cause is None:
            if self._leader_code is not None and not self._waits_for_children:
                self._kill = self._kill or Kill(self._tree, now)
            elif self._time_limit_at is not None and now >= self._time_limit_at:
                self._begin_end(Cause.TIMED_OUT, signal.SIGTERM, DEFAULT_GRACE)
            elif self._pump.over_limit and self._stops_over_limit:
                self._begin_end(Cause.OUTPUT_LIMIT, signal.SIGTERM, DEFAULT_GRACE)
        if self._kill_at is not None and now >= self._kill_at:
            self._kill = self._kill or Kill(self._tree, now)
        if self._leader_code is not None and self._tree.empty:
            return True
        if self._kill is not None and (unkillable := self._kill.repeat(now)) is not None:
            self._control.tell("unkillable", pids=unkillable)
        return False

    def _wait(self) -> None:
        """Wait for the next event or deadline, and serve it."""
        for fd, events in self._poller.poll(self._timeout()):
            if (pipe := self._pipes.get(fd)) is not None:
                if events == select.POLLHUP:  # and nothing to read
                    pipe.ended = True
                else:
                    self._pump.pump(pipe)
                if pipe.ended:
                    self._poller.unregister(fd)
                    del self._pipes[fd]
            elif fd == self._wakeup:
                children.take_event(fd)
            elif fd == self._cgroup_events:
                self._take_event(fd)
            elif self._oom is not None and fd == self._oom.fd:
                self._take_event(fd)
                self._oom.note(self._leader_lives)
            else:
                self._control.handle(fd, self._handle_request)

    def _take_event(self, fd: int) -> None:
        """Take an event of the group back, or watch it no more if it is gone (ENODEV), which polls for ever."""
        try:
            os.pread(fd, 4096, 0)
        except OSError:
            self._poller.unregister(fd)

    def _timeout(self) -> float | None:
        """Milliseconds until the next deadline; `None` if there is none."""
        if self._kill is not None:
            return self._kill.interval * 1000
        at = self._time_limit_at if self._kill_at is None else self._kill_at
        return None if at is None else min(max(0.0, at - time.monotonic()), MAX_POLL) * 1000 + 1

    def _reap(self) -> bool:
        """Take the exit statuses of the first process and of the orphans of the job; whether none of them is left."""
        with suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return False
                if pid == self._leader:
                    self._leader_code = os.waitstatus_to_exitcode(status)
        return True

    # Requests

    def _handle_request(self, request: Message) -> Message:
        """Do what a daemon asks for, and answer."""
        if self._over_or_ending_by_itself():
            return ENDED
        match request["op"]:
            case "stop":
                self._handle_stop(stop_from(request["stop"]))
            case "signal":
                self._signal_group(request["signal"])
            case "pause" | "resume" as operation:
                return self._set_paused(paused=operation == "pause")
            case "limits":
                return self._change_limits(request)
            case _:
                raise ValueError(f"unknown request {request['op']!r}")
        return DONE

    def _over_or_ending_by_itself(self) -> bool:
        """Whether the job's end is decided and no stop can be the reason for it."""
        self._reap()
        if self._cause is Cause.STOPPED:
            return False
        return self._leader_code is not None and (not self._waits_for_children or self._tree.empty)

    def _handle_stop(self, stop: StopRequest) -> None:
        if self._cause is None:
            self._stop = stop
            self._control.tell("stopping", stop=stop_record(stop))
            self._begin_end(Cause.STOPPED, stop.signal, stop.grace)
        else:  # it is ending: a second request can only hurry it
            self._hurry(stop.grace)

    def _set_paused(self, *, paused: bool) -> Message:
        """Have the job stand still, and its time limit with it, or let both go on."""
        cgroup = self._tree.cgroup
        if cgroup is None:
            return _refused(OSError(errno.EOPNOTSUPP, "", "cgroup.freeze"))
        if self._cause is not None:  # it is about to end, which pausing must not put off
            return ENDED
        if paused != self._paused:
            try:
                (cgroup.freeze if paused else cgroup.thaw)()
            except OSError as error:  # a process that is deep in the kernel, most likely: all go on
                return _refused(error)
            self._paused = paused
            (self._stop_clock if paused else self._start_clock)()
            self._control.tell("paused", paused=paused)
        return DONE

    def _start_clock(self) -> None:
        if self._time_limit is not None:
            self._time_limit_at = time.monotonic() + self._time_limit

    def _stop_clock(self) -> None:
        if self._time_limit_at is not None:
            self._time_limit = self._time_limit_at - time.monotonic()
            self._time_limit_at = None

    def _change_limits(self, request: Message) -> Message:
        if self._tree.cgroup is None:
            raise ValueError("this job has no cgroup")
        try:
            with self._tree.cgroup.written(request["writes"]):  # what cannot be kept is not put in force either
                self._directory.write(jobdir.LIMITS, {"limits": request["limits"]}, sync=self._sync)
        except OSError as error:
            return _refused(error)
        with suppress(OSError):  # full by now: then the end has to wait for room
            self._directory.reserve()
        if request["limits"].get("oom_group") is not True and self._oom is not None:
            self._oom.part(self._leader_lives)
        return DONE

    def _signal_group(self, number: int) -> None:
        if self._leader_code is None:
            os.killpg(self._leader, number)
        else:  # its pid may be somebody else's by now, unless its group lives on
            self._tree.signal(number, group=self._leader)

    def _begin_end(self, cause: Cause, number: int, grace: timedelta) -> None:
        self._cause = cause
        self._kill_at = time.monotonic() + grace.total_seconds()
        if self._paused and self._tree.cgroup is not None:
            with suppress(OSError):  # a kill would reach it as it is; the signal would not
                self._tree.cgroup.thaw()
            self._paused = False
            self._control.tell("paused", paused=False)
        if grace:
            self._tree.signal(signal.SIGCONT)  # first, so that a process that is stopped sees the signal
            self._tree.signal(number)

    def _hurry(self, grace: timedelta) -> None:
        kill_at = time.monotonic() + grace.total_seconds()
        self._kill_at = kill_at if self._kill_at is None else min(self._kill_at, kill_at)

    # End

    def _finish(self) -> bool:
        for pipe in self._pipes.values():
            self._pump.drain(pipe)
        for fd in (*self._pipes, self._wakeup, self._cgroup_events, -1 if self._oom is None else self._oom.fd):
            with suppress(KeyError, ValueError):  # one that is not open is -1
                self._poller.unregister(fd)
        self._pump.settle()
        if self._sync:
            with suppress(OSError):  # a disk that fails: the end is known all the same, and has to be told
                self._pump.sync()
        code = self._leader_code
        used = self._usage()
        cause = self._cause or self._natural_cause(used)
        end = JobEnd(
            cause=cause,
            end_time=datetime.now(UTC),
            exit_code=code if code is not None and code >= 0 else None,
            signal=-code if code is not None and code < 0 else None,
            output_bytes=self._pump.size,
            output_first_offset=self._pump.first,
            output_dropped_bytes=self._pump.dropped,
            usage=used,
        )
        stop = None if self._stop is None else stop_record(self._stop)
        record = {"end": end_record(end), "stop": stop}
        while not self._try_to_record(record):
            self._control_for(RECORD_RETRY)
        self._control.tell("ended", **record)
        if self._tree.cgroup is None:  # what the next job will have used could not be told from what this one has
            return False
        children.take_event(self._wakeup)  # else the next job would be woken by it
        return self._tree.cgroup.remove_patiently() and self._reap() and self._control.close()

    def _usage(self) -> Usage:
        """What the job has used; without a cgroup, what those of its processes have that were waited for."""
        wall_seconds = time.monotonic() - self._started_at
        if self._tree.cgroup is not None:
            return usage.read(self._tree.cgroup.path, wall_seconds, ended=True)
        reaped = resource.getrusage(resource.RUSAGE_CHILDREN)
        user, system = reaped.ru_utime, reaped.ru_stime
        return Usage(wall_seconds=wall_seconds, cpu_seconds=user + system, user_seconds=user, system_seconds=system)

    def _natural_cause(self, used: Usage) -> Cause:
        """Why a job ended that nobody has ended."""
        if self._leader_code is None or self._leader_code >= 0:
            return Cause.EXITED
        if (
            -self._leader_code == signal.SIGKILL
            and self._oom is not None
            and self._oom.was_the_end(used.oom_kills or 0)
        ):
            return Cause.OOM_KILLED
        return Cause.SIGNALED

    def _leader_lives(self) -> bool:
        return self._leader_code is None and not process.is_dying(self._leader)

    def _try_to_record(self, record: Record) -> bool:
        self._pump.settle()  # before: who knows of the end reads what is missing, and not again
        try:
            self._directory.write(jobdir.EXIT, record, sync=True)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
                raise
            return False
        return True

    def _control_for(self, seconds: float) -> None:
        """Serve the control socket for a while."""
        for fd, _ in self._poller.poll(seconds * 1000):
            self._control.handle(fd, self._handle_request)


def _refused(error: OSError) -> Message:
    return {"ok": False, "refused": {"errno": error.errno, "file": error.filename}}
