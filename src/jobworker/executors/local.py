"""Jobs on this machine: a directory, a supervisor and, where the kernel has them, a cgroup each."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import resource
import shutil
from collections.abc import AsyncGenerator
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from jobworker.core.errors import CommandNotStartedError, LimitNotEnforceableError, PauseNotSupportedError
from jobworker.core.job import Job, StopRequest
from jobworker.core.limits import Limits
from jobworker.core.records import Record, end_from, job_from, job_record, limits_from, stop_from, time_from
from jobworker.core.usage import Usage
from jobworker.executors.base import CgroupMode, Execution, ExecutorInfo, Outcome
from jobworker.executors.output import FileOutput, GrowthWatch, splice_is_seen
from jobworker.executors.place import Place, take_place
from jobworker.executors.spawner import Spawner
from jobworker.executors.supervision import Supervision, refusal
from jobworker.executors.user import JobUser
from jobworker.linux import process, usage
from jobworker.linux.cgroup import Cgroup
from jobworker.linux.limits import Write, writes
from jobworker.runtime import jobdir
from jobworker.runtime.burial import ID_VARIABLE
from jobworker.runtime.jobdir import JobDir
from jobworker.runtime.protocol import Message

BASE_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# How long a supervisor that has the lock of its job may take to answer after a restart of the daemon. It answers at
# once, unless it has been stopped or the machine is overloaded.
HELLO_PATIENCE = 2.0
# The kernel closes the descriptors of a process that has ended one by one, the control socket before the lock or after.
LOCK_PATIENCE = 5.0
# A kill takes milliseconds, unless the supervisor has been stopped or the program hangs on a file system.
END_PATIENCE = 5.0
LOCK_INTERVAL = 0.005
# Longer than a supervisor gives the program (`launch.START_PATIENCE`). None answers if the machine has no process left
# for one, or if somebody has stopped it.
START_PATIENCE = 40.0
MAX_SUBJECT_CHARS = 1000  # of a program's name in an error
BURY: Message = {"op": "bury"}
START_ATTEMPTS = 3  # the spawner may be killed while it has the request; more often than that it is no accident


@dataclass(frozen=True, kw_only=True, slots=True)
class LocalSettings:
    """Where jobs are kept and how they run.

    `directory` holds a folder a job. `sync` makes records survive a power cut. `user` is whom jobs run as; `None` means
    the user of this process, or "nobody" where that is root. `cgroups` says what becomes of limits and of the groups
    that they need: "require", "auto" (as far as they can be had) or "off".
    """

    directory: Path
    sync: bool = False
    user: str | None = None
    cgroups: CgroupMode = "auto"


class LocalExecutor:
    """An `Executor` for this machine. Made by `open`."""

    def __init__(self, settings: LocalSettings, user: JobUser, place: Place) -> None:
        self._jobs = settings.directory / "jobs"
        self._removed = settings.directory / "removed"
        self._sync = settings.sync
        self._mode: CgroupMode = settings.cgroups
        self._user = user
        self._place = place
        self._boot_id = process.boot_id()
        self._spawner = Spawner(settings.directory / "spawner.log", self._removed, place.jobs, place.home)
        self._growth = GrowthWatch()
        self._splice = True

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: LocalSettings) -> AsyncGenerator[LocalExecutor]:
        """Prepare the directory, the cgroup and the spawner; jobs run on when this is left.

        The limit of open descriptors of this process is raised as far as it may be: each running job takes one, and
        each follower. Raises `InvalidArgumentError` for a user that does not exist or that this process cannot become,
        and for limits that are required and cannot be enforced, and `OSError`.
        """
        user = JobUser.find(settings.user)
        with ExitStack() as held:
            place = await asyncio.to_thread(held.enter_context, take_place(settings.cgroups, _name(settings.directory)))
            executor = cls(settings, user, place)
            await executor._tidy()
            executor._splice = await asyncio.to_thread(splice_is_seen, settings.directory)
            try:
                executor._spawner.start()
                _take_descriptors()  # for this process; jobs have what they would have without it
                yield executor
            finally:
                await executor._spawner.close()
                executor._growth.close()
                if place.jobs is not None:
                    executor._remove_unused(place.jobs)
                    with suppress(OSError):  # jobs are in it still
                        place.jobs.rmdir()

    @property
    def info(self) -> ExecutorInfo:
        """What this place is."""
        return ExecutorInfo(
            name="local",
            enforceable_limits=self._place.enforceable,
            process_tracking="subreaper" if self._place.jobs is None else "cgroup",
            job_user=self._user.name,
            cgroups=self._mode,
            missing_limits=tuple(self._place.missing.items()),
        )

    async def start(self, job: Job) -> LocalExecution:
        """Run a job; see `Executor.start`."""
        try:
            with await self._prepared(job) as directory:
                return await self._start(job, directory)
        except OSError as error:
            await self.remove(job.id)
            raise CommandNotStartedError(
                errno=error.errno or errno.EIO, stage="supervise", subject=job.spec.argv[0]
            ) from error
        except BaseException:
            await self.remove(job.id)
            raise

    async def _start(self, job: Job, directory: JobDir) -> LocalExecution:
        for _ in range(START_ATTEMPTS):
            supervision = await self._supervise({"op": "supervise", "job": self._supervisor_record(job)}, directory)
            try:
                started = await _started(supervision)
            except TimeoutError:
                if (record := directory.read(jobdir.STARTED)) is not None:  # its supervisor has been stopped since
                    return self._execution(job, supervision, time_from(record["time"]))
                await _end(supervision, job)
                raise
            except CommandNotStartedError as error:
                if error.subject:
                    raise
                raise CommandNotStartedError(
                    errno=error.errno, stage=error.stage, subject=job.spec.argv[0][:MAX_SUBJECT_CHARS]
                ) from None
            except ConnectionError:
                if directory.output_size() is not None:
                    # The supervisor has died, and the program may have been executed. That is a job that is lost: as a
                    # start that failed it would be repeated.
                    return self._execution(job, supervision, job.create_time)
                # The spawner has died before it had forked: the job has not been touched, so try again.
            except asyncio.CancelledError:
                await _end(supervision, job)
                raise
            else:
                return self._execution(job, supervision, started)
        raise ConnectionError(errno.EIO, "no supervisor could be started; the spawner's log says why")

    async def known_ids(self) -> set[str]:
        """Ids of all jobs that have a directory."""
        return await asyncio.to_thread(lambda: {path.name for path in self._jobs.iterdir()})

    async def recover(self, job_id: str) -> tuple[Job, Execution | None] | None:
        """What became of a job while no daemon was there; see `Executor.recover`."""
        try:
            directory = JobDir.open(self._path(job_id))
        except (FileNotFoundError, NotADirectoryError):
            return None
        with directory:
            spec = directory.read(jobdir.SPEC)
            ended = directory.read(jobdir.EXIT)
            if spec is None and directory.output_size() is not None:
                raise ValueError(f"there is output, but no {jobdir.SPEC}")
            if spec is not None and ended is not None:
                return _with_outcome(_recorded(spec, directory), _outcome_from(ended)), None
            job = None if spec is None else _recorded(spec, directory)
            execution = None if spec is None or job is None else await self._adopt(job, directory, _group_of(spec))
            if job is None or execution is None:
                await self.remove(job_id)  # it never ran, and nobody was told that it did
                return None
            known = {"start_time": execution.start_time, "stop": execution.stop, "paused": execution.paused}
            return replace(job, **known), execution

    def open_output(self, job_id: str) -> FileOutput:
        """The output of a job. Raises `FileNotFoundError`."""
        return FileOutput(os.fsencode(self._path(job_id) / jobdir.OUTPUT), self._growth)

    def output_size(self, job_id: str) -> int:
        """Bytes of output there are now; 0 if nothing is kept of the job."""
        try:
            return (self._path(job_id) / jobdir.OUTPUT).stat().st_size
        except FileNotFoundError:
            return 0

    async def remove(self, job_id: str) -> None:
        """Delete the directory of a job; one that is not there is no error."""
        await asyncio.to_thread(self._delete, job_id)

    # For LocalExecution

    def read_outcome(self, job_id: str) -> Outcome | None:
        """The end of a job, if it has been recorded. Raises `OSError`, and as `recover` does."""
        with JobDir.open(self._path(job_id)) as directory:
            record = directory.read(jobdir.EXIT)
            return None if record is None else _outcome_from(record)

    async def reattach(self, job_id: str) -> Supervision:
        """A connection to the supervisor of a job without a recorded end, or to the one that buries the job."""
        with JobDir.open(self._path(job_id)) as directory:
            return await self._connect(directory) or await self._supervise(BURY, directory)

    async def writes_for(self, job: Job, limits: Limits, before: Limits) -> list[Write]:
        """What puts limits of a job in force in place of others. Raises `LimitNotEnforceableError`."""
        return await asyncio.to_thread(self._writes, limits, job.spec.cwd, before)

    # Steps

    def _path(self, job_id: str) -> Path:
        return self._jobs / job_id

    async def _prepared(self, job: Job) -> JobDir:
        preparation = asyncio.ensure_future(asyncio.to_thread(self._prepare, job))
        try:
            return await asyncio.shield(preparation)
        except asyncio.CancelledError:  # a thread cannot be cancelled: what it makes has to be there to be removed
            with suppress(OSError):
                (await preparation).close()
            raise

    def _prepare(self, job: Job) -> JobDir:
        directory = JobDir.create(self._path(job.id))
        try:
            directory.write(jobdir.SPEC, {"job": job_record(job), "launch": self._launch_record(job)}, sync=self._sync)
            if self._sync:
                _sync_directory(self._jobs)
        except BaseException:
            directory.close()
            raise
        return directory

    def _launch_record(self, job: Job) -> Record:
        """What is needed to run the program, beyond the spec."""
        user = self._user
        base = {"PATH": BASE_PATH, "LANG": "C.UTF-8", "SHELL": "/bin/sh"}
        person = {"HOME": user.home, "USER": user.name, "LOGNAME": user.name}
        return {
            "env": {**base, **person, **job.spec.env, ID_VARIABLE: job.id},
            "uid": user.uid,
            "gid": user.gid,
            "groups": user.groups,
            "cgroup": self._cgroup_of(job),
            "limits": self._writes(job.limits, job.spec.cwd, Limits()),
            "boot_id": self._boot_id,
            "sync": self._sync,
        }

    def _supervisor_record(self, job: Job) -> Record:
        """What the supervisor itself needs to know; see `protocol`."""
        limit = job.spec.time_limit
        return {
            "id": job.id,
            "cgroup": self._cgroup_of(job),
            "child_policy": job.spec.child_policy.value,
            "time_limit": None if limit is None else limit.total_seconds(),
            "oom_group": job.limits.oom_group is True,
            "splice": self._splice,
            "sync": self._sync,
        }

    def _cgroup_of(self, job: Job) -> str | None:
        return None if self._place.jobs is None else str(self._place.jobs / job.id)

    def _execution(self, job: Job, supervision: Supervision, started: datetime) -> LocalExecution:
        return LocalExecution(self, job, supervision, started, self._cgroup_of(job))

    def _writes(self, limits: Limits, cwd: str, before: Limits) -> list[Write]:
        self._place.check(limits, before)
        return writes(limits, cwd=cwd, before=before)

    async def _supervise(self, request: Message, directory: JobDir) -> Supervision:
        """Have a supervisor forked for a directory, and connect to it.

        The lock and the socket are made here and handed over, so that there is no moment at which somebody who looks
        could take the job for dead or find nobody to ask.
        """
        lock = await _lock(directory)
        try:
            with directory.listen() as listener:
                supervision = Supervision(directory.connect())
                await self._spawner.request(request, [directory.fd, lock, listener.fileno()])
        finally:
            os.close(lock)
        return supervision

    async def _connect(self, directory: JobDir) -> Supervision | None:
        """A connection to the supervisor of a job; `None` if it is dead."""
        lock = directory.lock()
        if lock is None:
            with suppress(ConnectionRefusedError):
                return Supervision(directory.connect())
            lock = await _lock(directory)  # it was just going
        os.close(lock)
        return None

    async def _adopt(self, job: Job, directory: JobDir, cgroup: str | None) -> LocalExecution | None:
        """The execution of a job without a recorded end; `None` if its program has never been executed."""
        supervision = await self._connect(directory)
        if supervision is None and directory.output_size() is None:
            return None
        if supervision is None:
            supervision = await self._supervise(BURY, directory)
        else:
            try:
                async with asyncio.timeout(HELLO_PATIENCE):
                    await asyncio.wait([supervision.started])
                return LocalExecution(self, job, supervision, supervision.started.result(), cgroup)
            except (CommandNotStartedError, LimitNotEnforceableError):
                return None
            except (TimeoutError, ConnectionError):  # `over` tells the rest of it
                pass
        return LocalExecution(self, job, supervision, job.start_time or job.create_time, cgroup)

    def _delete(self, job_id: str) -> None:
        """Delete in two steps, so that a job is there whole or not at all."""
        removed = self._removed / job_id
        with suppress(FileNotFoundError):
            self._path(job_id).rename(removed)
            shutil.rmtree(removed)

    async def _tidy(self) -> None:
        """Finish what a daemon that was killed had begun, and remove cgroups that nobody uses."""
        for directory in (self._jobs, self._removed):
            directory.mkdir(mode=0o700, exist_ok=True)
        for path in self._removed.iterdir():
            await asyncio.to_thread(shutil.rmtree, path)
        if self._place.jobs is not None:
            self._remove_unused(self._place.jobs)

    def _remove_unused(self, parent: Path) -> None:
        """Remove the cgroups of jobs that have ended; one that the kernel holds still is for the next time."""
        for path in parent.iterdir():
            if path.is_dir() and self._is_over(path.name) and not (cgroup := Cgroup(path)).populated:
                cgroup.remove()

    def _is_over(self, job_id: str) -> bool:
        directory = self._path(job_id)
        return (directory / jobdir.EXIT).exists() or not directory.exists()


class LocalExecution:
    """A job of this machine that runs."""

    def __init__(
        self, executor: LocalExecutor, job: Job, supervision: Supervision, started: datetime, cgroup: str | None
    ) -> None:
        self._executor = executor
        self._job = job
        self._limits = job.limits
        self._changing = asyncio.Lock()  # what is written depends on the limits before
        self._supervision = supervision
        self._cgroup = cgroup
        self._stop: StopRequest | None = None
        self.start_time = started

    @property
    def stop(self) -> StopRequest | None:
        """The stop that is under way."""
        return self._supervision.stop or self._stop

    async def request_stop(self, stop: StopRequest) -> bool:
        """Begin a stop, which goes on by itself, or hurry one that is under way; `False` if the job has ended."""
        return await self._supervision.request_stop(stop)

    async def send_signal(self, number: int) -> bool:
        """Signal the process group of the job's first process; `False` if the job has ended."""
        return await self._supervision.send_signal(number)

    @property
    def paused(self) -> bool:
        """Whether the job stands still."""
        return self._supervision.paused

    @property
    def unkillable_pids(self) -> tuple[int, ...]:
        """The processes that live on although they were killed."""
        return self._supervision.unkillable_pids

    async def pause(self) -> bool:
        """Have the job stand still; see `Execution.pause`."""
        return await self._set_paused(paused=True)

    async def resume(self) -> bool:
        """Let a paused job go on; `False` if it has ended."""
        if self._cgroup is None:  # it goes on
            return not self._supervision.over.done()
        return await self._set_paused(paused=False)

    async def update(self, limits: Limits) -> bool:
        """Put limits in force in place of the present ones; see `Execution.update`."""
        async with self._changing:
            writes = await self._executor.writes_for(self._job, limits, self._limits)
            try:
                done = await self._supervision.set_limits(limits, writes)
            except OSError as error:
                raise refusal(error.filename or "", error.errno or errno.EIO) from None
            if done:
                self._limits = limits
            return done

    async def usage(self) -> Usage | None:
        """What the job has used up to now; `None` if it has ended."""
        wall_seconds = (datetime.now(UTC) - self.start_time).total_seconds()
        if self._supervision.over.done():
            return None
        if self._cgroup is None:
            return Usage(wall_seconds=wall_seconds)
        used = usage.read(self._cgroup, wall_seconds)
        return None if used.cpu_seconds is None else used  # every group tells it, so this one has just gone

    async def _set_paused(self, *, paused: bool) -> bool:
        if self._cgroup is None:
            raise PauseNotSupportedError
        try:
            return await self._supervision.set_paused(paused=paused)
        except OSError as error:
            raise PauseNotSupportedError(f"the job cannot be paused: {error.strerror}") from None

    async def outcome(self) -> Outcome:
        """Wait for the recorded end."""
        await self._supervision.over
        self._supervision.close()
        outcome = self._executor.read_outcome(self._job.id)
        if outcome is None:  # the supervisor has died, or has only dropped the connection
            self._stop = self.stop  # whoever buries a job has not heard of it
            self._supervision = await self._executor.reattach(self._job.id)
            await self._supervision.over
            self._supervision.close()
            outcome = self._executor.read_outcome(self._job.id)
        if outcome is None:
            raise OSError(errno.EIO, "the end of the job has not been recorded; the spawner's log says why")
        return outcome

    async def close(self) -> None:
        """Let go of the job without touching it."""
        self._supervision.close()


def _recorded(spec: Record, directory: JobDir) -> Job:
    """A job with its start and the limits in force, as its records tell them."""
    job = job_from(spec["job"])
    started, changed = directory.read(jobdir.STARTED), directory.read(jobdir.LIMITS)
    return replace(
        job,
        start_time=job.create_time if started is None else time_from(started["time"]),
        limits=job.limits if changed is None else limits_from(changed["limits"]),
    )


def _group_of(spec: Record) -> str | None:
    return spec["launch"]["cgroup"]


def _with_outcome(job: Job, outcome: Outcome) -> Job:
    return replace(job, end=outcome.end, stop=outcome.stop, output_bytes=outcome.end.output_bytes)


def _outcome_from(record: Record) -> Outcome:
    stop = record["stop"]
    return Outcome(end=end_from(record["end"]), stop=None if stop is None else stop_from(stop))


async def _started(supervision: Supervision) -> datetime:
    """When the program was executed. Raises what `Supervision.started` does, and `TimeoutError`."""
    await asyncio.wait([supervision.started], timeout=START_PATIENCE)
    if not supervision.started.done():
        raise TimeoutError(errno.ETIMEDOUT, "no supervisor has answered")
    return supervision.started.result()


async def _end(supervision: Supervision, job: Job) -> None:
    """Kill a job that nobody wants any more, and wait for that, though not for ever."""
    stop = StopRequest(requested_by=job.owner, request_time=datetime.now(UTC), grace=timedelta(0))
    with suppress(TimeoutError):
        async with asyncio.timeout(END_PATIENCE):
            await supervision.request_stop(stop)
            await supervision.over
    supervision.close()


async def _lock(directory: JobDir) -> int:
    """The lock of a directory whose supervisor is gone or just going. Raises `TimeoutError` if it lives on."""
    async with asyncio.timeout(LOCK_PATIENCE):
        while (lock := directory.lock()) is None:  # noqa: ASYNC110 - flock tells nobody who does not block a thread for it
            await asyncio.sleep(LOCK_INTERVAL)
    return lock


def _take_descriptors() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _name(directory: Path) -> str:
    """The name of the cgroup for the jobs of a state directory, the same one after every restart."""
    return f"jobworker-{hashlib.sha256(os.fsencode(directory.resolve())).hexdigest()[:12]}"
