"""The outputs of the jobs of this machine, wherever they have been moved since the job's end."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from contextlib import suppress

from jobworker.core.errors import OutputUnavailableError
from jobworker.core.records import Record
from jobworker.executors.archive import Archives, ArchiveThreads
from jobworker.executors.base import KeptOutput, Output, OutputForm
from jobworker.executors.directories import BLOCK_BYTES, JobDirectories, disk_bytes
from jobworker.executors.growth import GrowthWatch
from jobworker.executors.output import FileOutput
from jobworker.executors.threads import Threads
from jobworker.runtime import jobdir

# Seconds for one output to be compressed, uploaded and read back: a hundred gigabytes over a slow line.
PACKING_PATIENCE = 24 * 3600.0

_FORMS = {jobdir.OUTPUT: OutputForm.RAW, jobdir.COMPRESSED_OUTPUT: OutputForm.COMPRESSED}  # in the order of its way


class LocalOutputs:
    """Opens outputs, and has those of ended jobs compressed and archived, one at a time, in a process of its own.

    `archive_url` is where; `reserve` bytes of the file system are not for compressed output.
    """

    def __init__(
        self,
        directories: JobDirectories,
        growth: GrowthWatch,
        threads: Threads,
        *,
        reserve: int,
        archive_url: str | None,
    ) -> None:
        self._directories = directories
        self._growth = growth
        self._threads = threads
        self._reserve = reserve
        self._archive_url = archive_url
        self._archives = Archives()
        self._archive_threads = ArchiveThreads()
        self._packing = asyncio.Lock()
        self._packed_now: tuple[str, asyncio.subprocess.Process] | None = None
        self._removed_now: set[str] = set()

    def open(self, job_id: str, *, indexed: bool) -> Output:
        """The output of a job; see `Executor.open_output`."""
        # In the order of its way, so that one that is moved meanwhile is found behind.
        path = os.fsencode(self._directories.path(job_id))
        with suppress(FileNotFoundError):
            return FileOutput(path, self._growth, indexed=indexed)
        record = self._record(job_id, jobdir.COMPRESSED)
        # Loaded when it is needed, because it loads zstd, which is not part of every Python.
        from jobworker.executors.packed import ArchivedContent, Content, LocalContent, PackedOutput  # noqa: PLC0415

        content: Content
        try:
            content = LocalContent(path + b"/" + jobdir.COMPRESSED_OUTPUT.encode())
        except FileNotFoundError:
            archived = self._record(job_id, jobdir.ARCHIVED)
            content = ArchivedContent(job_id, archived, self._archives, self._archive_threads)
        return PackedOutput(path, content, size=record["size"])

    async def kept(self, job_ids: Sequence[str]) -> list[KeptOutput]:
        """How the outputs of ended jobs are kept; see `Executor.kept_outputs`."""
        return await self._threads.run(lambda: [self._kept(job_id) for job_id in job_ids])

    async def pack(self, job_id: str, *, archive: bool) -> None:
        """Compress the output of an ended job, and archive it; see `Executor.compress_output`."""
        url = self._archive_url if archive else ""
        if url is None:
            raise OSError("there is no archive")
        path = self._directories.path(job_id)
        async with self._packing:
            if job_id in self._removed_now:
                return
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "jobworker.executors.packing"),
                *(path, str(self._reserve), str(os.getpid()), url),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
            )
            self._packed_now = job_id, process
            try:
                async with asyncio.timeout(PACKING_PATIENCE):
                    _, said = await process.communicate()
            finally:
                self._packed_now = None
                if process.returncode is None:
                    process.kill()
                    await process.wait()
        if process.returncode != 0 and path.exists():  # else it has been removed meanwhile
            reasons = said.decode(errors="replace").splitlines() or [f"exit code {process.returncode}"]
            raise OSError(reasons[-1])

    async def remove(self, job_id: str) -> None:
        """Delete all of a job, in the archive first. Raises `OutputUnavailableError`, after which all else is there."""
        self._removed_now.add(job_id)
        try:
            if self._packed_now is not None and self._packed_now[0] == job_id:
                with suppress(ProcessLookupError):
                    self._packed_now[1].kill()
                async with self._packing:
                    pass
            try:
                record = await self._threads.run(self._record, job_id, jobdir.ARCHIVED)
            except (FileNotFoundError, ValueError):
                record = None
            if record is not None:
                await self._remove_archived(job_id, record)
            await self._threads.run(self._directories.delete, job_id)
        finally:
            self._removed_now.discard(job_id)

    async def _remove_archived(self, job_id: str, record: Record) -> None:
        try:
            await self._archive_threads.run(lambda: self._archives.delete(record["url"], record.get("archive_id", "")))
        except Exception as error:  # libraries for archives raise anything
            raise OutputUnavailableError(job_id) from error

    def _record(self, job_id: str, kind: str) -> Record:
        with self._directories.open(job_id) as directory:
            record = directory.read(kind)
        if record is None:
            raise FileNotFoundError(f"the output of job {job_id} is not there")
        return record

    def _kept(self, job_id: str) -> KeptOutput:
        path = self._directories.path(job_id)
        for name, form in _FORMS.items():
            with suppress(FileNotFoundError):
                return KeptOutput(form, (path / name).stat().st_blocks * BLOCK_BYTES + disk_bytes(path / name))
        return KeptOutput(OutputForm.ARCHIVED, 0)
