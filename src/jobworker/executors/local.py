"""Jobs on this machine: a directory, a supervisor and, where the kernel has them, a cgroup each."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager, closing, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path

from jobworker.core.errors import CommandNotStartedError, LimitNotEnforceableError
from jobworker.core.job import Job
from jobworker.core.limits import Limits
from jobworker.core.output import DEFAULT_OUTPUT_RESERVE
from jobworker.core.records import job_record
from jobworker.core.usage import Usage
from jobworker.executors.archive import check_url
from jobworker.executors.base import CgroupMode, Execution, ExecutorInfo, KeptOutput, Output
from jobworker.executors.briefing import Briefing
from jobworker.executors.directories import JobDirectories, cgroup_of, job_from_records, outcome_from
from jobworker.executors.execution import LocalExecution
from jobworker.executors.growth import GrowthWatch, OutputWatch, can_splice, watch_for
from jobworker.executors.output import can_make_holes
from jobworker.executors.outputs import LocalOutputs
from jobworker.executors.place import Place, place_name, retake, take_place
from jobworker.executors.spawner import Spawner
from jobworker.executors.standbys import Standbys
from jobworker.executors.supervision import Supervision
from jobworker.executors.supervisors import Supervisors, end_unwanted, start_time
from jobworker.executors.threads import Threads
from jobworker.executors.user import JobUser
from jobworker.linux import process
from jobworker.linux.cgroup import Cgroup
from jobworker.linux.limits import Write
from jobworker.runtime import jobdir
from jobworker.runtime.gaps import Extent
from jobworker.runtime.jobdir import JobDir

# How long a supervisor that has the lock of its job may take to answer after a restart of the daemon. It answers at
# once, unless it has been stopped or the machine is overloaded.
HELLO_PATIENCE = 2.0
MAX_RESERVED_PART = 20  # of a file system, for it may be a small one
MAX_SUBJECT_CHARS = 1000  # of a program's name in an error
# Longer than a supervisor gives the program (`launch.START_PATIENCE`). None answers if the machine has no process left
# for one, or if somebody has stopped it.
START_PATIENCE = 40.0
START_ATTEMPTS = 3  # supervisors that end before they have begun, unless it was the spawner that was killed


@dataclass(frozen=True, kw_only=True, slots=True)
class LocalSettings:
    """Where jobs are kept and how they run.

    `directory` holds a folder a job. `sync` makes records survive a power cut. `user` is whom jobs run as; `None` means
    the user of this process, or "nobody" where that is root. `cgroups` says what becomes of limits and of the groups
    that they need: "require", "auto" (as far as they can be had) or "off". `output_reserve` bytes of the file system
    are not for output, though no more than a twentieth of it. `output_watch` says how followers are told that output
    has come: "inotify", "poll", or "auto", by inotify where it can tell. `archive_url` is where output is archived.
    """

    directory: Path
    sync: bool = False
    user: str | None = None
    cgroups: CgroupMode = "auto"
    output_reserve: int = DEFAULT_OUTPUT_RESERVE
    output_watch: OutputWatch = "auto"
    archive_url: str | None = None


class LocalExecutor:
    """An `Executor` for this machine. Made by `open`."""

    def __init__(  # noqa: PLR0913, PLR0917 - what `open` has made of the settings
        self,
        settings: LocalSettings,
        briefing: Briefing,
        place: Place,
        threads: Threads,
        growth: GrowthWatch,
        retake: Callable[[], None],
    ) -> None:
        self._directories = JobDirectories(settings.directory)
        self._mode: CgroupMode = settings.cgroups
        self._briefing = briefing
        self._place = place
        self._threads = threads
        log = settings.directory / "spawner.log"
        self._spawner = Spawner(log, settings.directory, place.jobs, place.home, self._have_place)
        self._retake = retake
        self._taking = asyncio.Lock()
        self._supervisors = Supervisors(self._spawner)
        self._standbys = Standbys(self._next_standby, self._delete_standby)
        self._outputs = LocalOutputs(
            self._directories, growth, threads, reserve=briefing.output_reserve, archive_url=settings.archive_url
        )

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: LocalSettings) -> AsyncGenerator[LocalExecutor]:
        """Prepare the directory, the cgroup and the spawner; jobs run on when this is left.

        The limit of open descriptors of this process is raised as far as it may be: each running job takes one, and
        each follower. Raises `InvalidArgumentError` for a user that does not exist or that this process cannot become,
        for limits that are required and cannot be enforced and for an archive that cannot be used, and `OSError`.
        """
        user = JobUser.find(settings.user)
        if settings.archive_url is not None:
            check_url(settings.archive_url)
        with ExitStack() as held:
            threads = held.enter_context(Threads())
            watch = await threads.run(watch_for, settings.directory, settings.output_watch)
            growth = held.enter_context(closing(GrowthWatch(watch)))
            briefing = Briefing(
                user=user,
                boot_id=process.boot_id(),
                sync=settings.sync,
                output_reserve=min(settings.output_reserve, _size_of_disk(settings.directory) // MAX_RESERVED_PART),
                splice=await threads.run(can_splice, settings.directory, watch),
                holes=await threads.run(can_make_holes, settings.directory),
            )
            name = place_name(settings.directory)
            place = await threads.run(held.enter_context, take_place(settings.cgroups, name))
            executor = cls(settings, briefing, place, threads, growth, partial(retake, place, name, held))
            held.callback(executor._leave_place)
            await threads.run(executor._tidy)
            try:
                executor._spawner.start()
                executor._standbys.begin()
                _take_descriptors()  # for this process; jobs have what they would have without it
                yield executor
            finally:
                await executor._standbys.close()
                executor._supervisors.close()
                await executor._spawner.close()

    @property
    def info(self) -> ExecutorInfo:
        """What this place is."""
        return ExecutorInfo(
            name="local",
            enforceable_limits=self._place.enforceable,
            process_tracking="subreaper" if self._place.jobs is None else "cgroup",
            job_user=self._briefing.user.name,
            cgroups=self._mode,
            missing_limits=tuple(self._place.missing.items()),
        )

    async def start(self, job: Job) -> LocalExecution:
        """Run a job; see `Executor.start`."""
        program = job.spec.argv[0][:MAX_SUBJECT_CHARS]
        try:
            await self._have_place()
            with self._standbys.start():
                return await self._start(job)
        except CommandNotStartedError as error:
            await self._take_back(job.id)
            raise CommandNotStartedError(
                errno=error.errno, stage=error.stage, subject=error.subject or program
            ) from None
        except OSError as error:
            await self._take_back(job.id)
            raise CommandNotStartedError(errno=error.errno or errno.EIO, stage="supervise", subject=program) from error
        except BaseException:
            await self._take_back(job.id)
            raise

    def new_id(self) -> str:
        """The id for a job; see `Executor.new_id`."""
        return self._standbys.new_id()

    async def _start(self, job: Job) -> LocalExecution:
        cgroup = self._cgroup_of(job.id)
        launch = self._briefing.of_launch(job, cgroup, await self._limit_writes(job))
        record = jobdir.line_of(jobdir.SPEC, {"job": job_record(job), "launch": launch})
        supervision = self._standbys.take(job.id)  # not before: who has failed up to here gives it back
        deadline = asyncio.get_running_loop().time() + START_PATIENCE
        attempts, kills = 0, self._spawner.kills
        while attempts - (self._spawner.kills - kills) < START_ATTEMPTS:
            attempts += 1
            if supervision is None:
                supervision = await self._stand_by(job.id)
            try:
                supervision.start(self._briefing.of_supervisor(job, cgroup), record)
                started = await start_time(supervision, deadline)
            except TimeoutError:
                if (known := self._directories.start_time(job.id)) is None:
                    await end_unwanted(supervision, job.owner)
                    raise
                started = known  # its supervisor has been stopped since
            except ConnectionError:
                if not self._directories.may_have_run(job.id):  # spawner or supervisor had died before, so try again
                    await self._threads.run(self._directories.delete, job.id)
                    supervision = None
                    continue
                # The supervisor has died, and the program may have been executed. That is a job that is lost: as a
                # start that failed it would be repeated.
                started = job.create_time
            except asyncio.CancelledError:
                await end_unwanted(supervision, job.owner)
                raise
            except BaseException:
                supervision.close()
                raise
            return self._execution(job, supervision, started, cgroup)
        raise ConnectionError(errno.EIO, "no supervisor could be started; the spawner's log says why")

    async def usages(self, executions: Sequence[Execution]) -> list[Usage | None]:
        """What some of its jobs have used; see `Executor.usages`. One visit to a thread: each has some ten files."""
        return await self._threads.run(lambda: [execution.usage() for execution in executions])

    async def known_ids(self) -> set[str]:
        """Ids of all jobs that have a directory."""
        return await self._threads.run(self._directories.ids)

    async def recover(self, job_id: str) -> tuple[Job, Execution | None] | None:
        """What became of a job while no daemon was there; see `Executor.recover`."""
        try:
            directory = self._directories.open(job_id)
        except (FileNotFoundError, NotADirectoryError):
            return None
        with directory:
            records = directory.records()
            spec, ended = records.get(jobdir.SPEC), records.get(jobdir.EXIT)
            if spec is None and directory.output_size() is not None:
                raise ValueError("there is output, but no spec")
            if spec is not None and ended is not None:
                outcome = outcome_from(ended)
                job = job_from_records(records)
                return outcome.of(job), None
            job = None if spec is None else job_from_records(records)
            execution = None if spec is None or job is None else await self._adopt(job, directory, cgroup_of(spec))
            if job is None or execution is None:
                await self.remove(job_id)  # it never ran, and nobody was told that it did
                return None
            known = {"start_time": execution.start_time, "stop": execution.stop, "paused": execution.paused}
            return replace(job, **known), execution

    def open_output(self, job_id: str, *, indexed: bool) -> Output:
        """The output of a job; see `Executor.open_output`."""
        return self._outputs.open(job_id, indexed=indexed)

    def output_extent(self, job_id: str) -> Extent:
        """Where the output begins and ends now; nothing if nothing is kept of the job."""
        return self._directories.output_extent(job_id)

    async def output_extents(self, job_ids: Sequence[str]) -> list[Extent]:
        """As `output_extent`, of many; see `Executor.output_extents`."""
        return await self._threads.run(lambda: [self._directories.output_extent(job_id) for job_id in job_ids])

    async def kept_outputs(self, job_ids: Sequence[str]) -> list[KeptOutput]:
        """How the outputs of ended jobs are kept; see `Executor.kept_outputs`."""
        return await self._outputs.kept(job_ids)

    async def compress_output(self, job_id: str) -> None:
        """Have the output of an ended job take less room; see `Executor.compress_output`."""
        await self._outputs.pack(job_id, archive=False)

    async def archive_output(self, job_id: str) -> None:
        """Move the output of an ended job to the archive; see `Executor.archive_output`."""
        await self._outputs.pack(job_id, archive=True)

    async def disk_bytes(self) -> int:
        """What all that is kept of jobs takes of the disk."""
        return await self._threads.run(self._directories.disk_bytes)

    async def remove(self, job_id: str) -> None:
        """Delete all of a job; see `Executor.remove`."""
        await self._standbys.give_back(job_id)
        await self._outputs.remove(job_id)
        if (path := self._cgroup_of(job_id)) is not None:  # left by a supervisor that was killed at the very end
            await self._threads.run(Cgroup(path).remove_patiently)

    async def _take_back(self, job_id: str) -> None:
        """Delete what a start that has failed has left; what is not deleted now, the next daemon deletes."""
        with suppress(OSError):  # out of descriptors, most likely; why the start has failed counts
            await self.remove(job_id)

    async def _delete_standby(self, job_id: str) -> None:
        await self._threads.run(self._directories.delete, job_id)
        if (path := self._cgroup_of(job_id)) is not None:  # of one that has died, or does not answer
            cgroup = Cgroup(path)
            await self._threads.run(cgroup.kill)
            await self._threads.run(cgroup.remove_patiently)

    # Steps

    async def _limit_writes(self, job: Job) -> Sequence[Write]:
        if job.limits == Limits():
            return ()
        return await self._threads.run(self._place.writes, job.limits, cwd=job.spec.cwd)

    async def _next_standby(self, job_id: str) -> Supervision:
        await self._supervisors.one_free_soon()
        return await self._stand_by(job_id)

    async def _stand_by(self, job_id: str) -> Supervision:
        return await self._supervisors.stand_by(job_id, self._cgroup_of(job_id))

    def _cgroup_of(self, job_id: str) -> str | None:
        return None if self._place.jobs is None else str(self._place.jobs / job_id)

    def _execution(self, job: Job, supervision: Supervision, started: datetime, cgroup: str | None) -> LocalExecution:
        return LocalExecution(
            job=job,
            started=started,
            cgroup=cgroup,
            supervision=supervision,
            supervisors=self._supervisors,
            directories=self._directories,
            place=self._place,
            threads=self._threads,
        )

    async def _adopt(self, job: Job, directory: JobDir, cgroup: str | None) -> LocalExecution | None:
        """The execution of a job without a recorded end; `None` if its program has never been executed."""
        supervision = await self._supervisors.find(directory)
        if supervision is None and directory.output_size() is None:
            return None
        if supervision is None:
            supervision = await self._supervisors.bury(directory)
        else:
            try:
                async with asyncio.timeout(HELLO_PATIENCE):
                    await asyncio.wait([supervision.started])
                return self._execution(job, supervision, supervision.started.result(), cgroup)
            except (CommandNotStartedError, LimitNotEnforceableError):
                return None
            except (TimeoutError, ConnectionError):  # `over` tells the rest of it
                pass
        return self._execution(job, supervision, job.start_time or job.create_time, cgroup)

    async def _have_place(self) -> None:
        """Have the groups again if they have gone with systemd's scope, which somebody has stopped."""
        home = self._place.home
        async with self._taking:
            if home is not None and not home.is_dir():
                await self._threads.run(self._retake)

    def _leave_place(self) -> None:
        """Remove the groups that nobody uses."""
        if self._place.jobs is None:
            return
        with suppress(OSError):  # jobs are in it still, or it is gone
            self._directories.remove_unused_cgroups(self._place.jobs)
            self._place.jobs.rmdir()

    def _tidy(self) -> None:
        """Finish what a daemon that was killed had begun, and remove cgroups that nobody uses."""
        self._directories.prepare()
        if self._place.jobs is not None:
            self._directories.remove_unused_cgroups(self._place.jobs)


def _take_descriptors() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _size_of_disk(directory: Path) -> int:
    there = os.statvfs(directory)
    return there.f_blocks * there.f_frsize
