"""The directories of the jobs of this machine: made, read, and deleted whole."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from jobworker.core.job import Job
from jobworker.core.records import Record, end_from, job_from, limits_from, stop_from, time_from
from jobworker.executors.base import Outcome
from jobworker.linux.cgroup import Cgroup
from jobworker.runtime import jobdir
from jobworker.runtime.gaps import Extent, extent
from jobworker.runtime.jobdir import JobDir

BLOCK_BYTES = 512  # what st_blocks counts


class JobDirectories:
    """All that is kept of jobs, a directory each, in `parent`. What has to be deleted goes by way of `removed`.

    Supervisors make them: see `runtime.standby`.
    """

    def __init__(self, parent: Path) -> None:
        self._jobs = parent / jobdir.JOBS
        self._standby = parent / jobdir.STANDBY
        self._removed = parent / jobdir.REMOVED

    def prepare(self) -> None:
        """Make the folders, and finish what somebody who was killed had begun to delete. Raises `OSError`."""
        for directory in (self._jobs, self._standby, self._removed):
            directory.mkdir(mode=0o700, exist_ok=True)
        for path in (*self._standby.iterdir(), *self._removed.iterdir()):
            if path.is_dir() and not path.is_symlink():
                # As far as it goes: a spawner of before may be rehearsing in it still. A later start goes on.
                shutil.rmtree(path, ignore_errors=True)
            else:  # it is none of ours
                path.unlink()

    def path(self, job_id: str) -> Path:
        """Where the directory of a job is or would be."""
        return self._jobs / job_id

    def open(self, job_id: str) -> JobDir:
        """The directory of a job. Raises `FileNotFoundError`."""
        return JobDir.open(self.path(job_id))

    def may_have_run(self, job_id: str) -> bool:
        """Whether the program of a job may have been executed."""
        try:
            with self.open(job_id) as directory:
                return directory.output_size() is not None
        except FileNotFoundError:
            return False

    def start_time(self, job_id: str) -> datetime | None:
        """When the program of a job was executed, if it was."""
        try:
            with self.open(job_id) as directory:
                record = directory.read(jobdir.STARTED)
        except FileNotFoundError:
            return None
        return None if record is None else time_from(record["time"])

    def ids(self) -> set[str]:
        """Ids of all jobs that have a directory."""
        return {path.name for path in self._jobs.iterdir()}

    def output_extent(self, job_id: str) -> Extent:
        """Where the output begins and ends now; nothing if nothing is kept of the job."""
        return extent(str(self.path(job_id)))

    def disk_bytes(self) -> int:
        """What all files of all jobs take of the disk."""
        return sum(disk_bytes(directory) for directory in self._jobs.iterdir())

    def outcome(self, job_id: str) -> Outcome | None:
        """The end of a job, if it has been recorded. Raises `OSError`, and what `core.records` does."""
        with self.open(job_id) as directory:
            record = directory.read(jobdir.EXIT)
            return None if record is None else outcome_from(record)

    def delete(self, job_id: str) -> None:
        """Delete in two steps, so that a job is there whole or not at all; one that is not there is no error."""
        removed = self._removed / job_id
        for path in (self.path(job_id), self._standby / job_id):
            with suppress(FileNotFoundError):
                path.rename(removed)
                shutil.rmtree(removed)

    def remove_unused_cgroups(self, parent: Path) -> None:
        """Remove the cgroups of jobs that have ended; one that the kernel holds still is for the next time."""
        for path in parent.iterdir():
            if path.is_dir() and self._is_over(path.name) and not (cgroup := Cgroup(path)).populated:
                cgroup.remove()

    def _is_over(self, job_id: str) -> bool:
        try:
            with self.open(job_id) as directory:
                return directory.read(jobdir.EXIT) is not None
        except FileNotFoundError:
            return True
        except ValueError:
            return False


def disk_bytes(folder: Path | str) -> int:
    """What all that is in a folder takes of the disk; nothing where there is none."""
    total = 0
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):  # it has just been deleted
                total += entry.stat(follow_symlinks=False).st_blocks * BLOCK_BYTES
            if entry.is_dir(follow_symlinks=False):
                total += disk_bytes(entry.path)
    return total


def job_from_records(records: Mapping[str, Record]) -> Job:
    """A job with its start and the limits in force, as the records of its directory tell them."""
    job = job_from(records[jobdir.SPEC]["job"])
    started, changed = records.get(jobdir.STARTED), records.get(jobdir.LIMITS)
    return replace(
        job,
        start_time=job.create_time if started is None else time_from(started["time"]),
        limits=job.limits if changed is None else limits_from(changed["limits"]),
    )


def cgroup_of(spec: Record) -> str | None:
    """The path of a job's cgroup; `None` if it was started without one."""
    return spec["launch"]["cgroup"]


def outcome_from(record: Record) -> Outcome:
    """The outcome that the record of an end describes."""
    stop = record["stop"]
    return Outcome(end=end_from(record["end"]), stop=None if stop is None else stop_from(stop))
