"""The output of many jobs at once, line by line."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from jobworker.cli import text
from jobworker.cli.exits import CliError, code_of
from jobworker.cli.job_ids import full_id
from jobworker.cli.job_output import StampedLines, check_split, missing
from jobworker.cli.lines import JobLines, prefixes
from jobworker.cli.raw_output import RawOutput
from jobworker.client import AsyncClient, Chunk, SelectionFields, Stream
from jobworker.core.errors import JobworkerError, OffsetOutOfRangeError, ServerUnavailableError
from jobworker.core.job import Job
from jobworker.core.output import Gap, GapReason
from jobworker.core.query import JobFilter

MAX_FOLLOWED = 200  # as many as a user may run by default, and fewer than a server lets one follow, which is 256


async def stream_many(  # noqa: PLR0913 -- what is asked for, by keyword
    client: AsyncClient,
    which: Sequence[str] | JobFilter,
    *,
    offset: int,
    follow: bool,
    prefix: bool,
    selection: SelectionFields,
) -> int:
    """Write the output of these jobs, each stream to ours, until all have ended, and give the exit code.

    What there is comes first, job by job; then, with `follow`, what the running ones write, as they write it. So no
    more than one backlog is under way at a time. A job that cannot be read is told, and the others go on.
    """
    from_end = selection.get("tail") == 0  # of each as it is found, for no output tells where that is
    if from_end:
        selection = selection | {"tail": None}
    many = _ManyStreams(client)
    jobs = list({job.id: job async for job in many.find(which, streams=bool(selection.get("streams")))}.values())
    if isinstance(which, JobFilter):
        jobs.reverse()  # the newest last, as in the output of one job
        if not jobs:
            text.say("there are no such jobs")
    # stderr may be closed: then nobody wants it
    ours = {stream: target for stream in Stream if (target := sys.stderr if stream is Stream.STDERR else sys.stdout)}
    beginnings = {stream: list(prefixes(jobs, target)) for stream, target in ours.items()} if prefix else {}
    outputs = [
        _Output(
            job_id=job.id,
            lines={
                stream: JobLines(beginnings[stream][number] if prefix else b"", terminal=target.isatty())
                for stream, target in ours.items()
            },
            selection=selection,
            offset=job.output_bytes if from_end else offset,
            followed=follow and job.end is None,
        )
        for number, job in enumerate(jobs)
    ]
    check_number(sum(output.followed for output in outputs))
    await many.copy(outputs)
    return many.code


def check_number(followed: int) -> None:
    """Raise `CliError` if these are too many jobs to follow at a time."""
    if followed > MAX_FOLLOWED:
        raise CliError(
            f"{followed} of these jobs run, and at most {MAX_FOLLOWED} can be followed at a time (a server's own bound "
            f"is max_followers_per_user for each user, 256 by default); name fewer, or give --no-follow"
        )


@dataclass(kw_only=True, slots=True)
class _Output:
    """The output of one job: up to where it has been read, and whether it is to be followed from there on."""

    job_id: str
    lines: Mapping[Stream, JobLines]
    selection: SelectionFields
    offset: int
    followed: bool
    stamps: Mapping[Stream, StampedLines] = field(default_factory=lambda: {stream: StampedLines() for stream in Stream})

    def feed(self, chunk: Chunk) -> bytes:
        """The lines that are complete with a chunk."""
        if chunk.stream not in self.lines:
            return b""
        data = self.stamps[chunk.stream].feed(chunk) if self.selection.get("times") else chunk.data
        return self.lines[chunk.stream].feed(data)


class _ManyStreams:
    """Reads jobs over one connection. `code` is the exit code: 0, or that of the first job that could not be read."""

    def __init__(self, client: AsyncClient) -> None:
        self.code = 0
        self._client = client
        self._stdout = _Batches(RawOutput().write)
        self._stderr: _Batches | None = None

    async def find(self, which: Sequence[str] | JobFilter, *, streams: bool) -> AsyncGenerator[Job]:
        """The jobs with these ids, or those for which a filter holds.

        What cannot be read is left out and told: those that do not exist, and, for `streams`, those with just one.
        """
        async with aclosing(self._all(which)) as jobs:
            async for job in jobs:
                try:
                    if streams:
                        check_split(job)
                    yield job
                except CliError as error:
                    self._tell(job.id, error)

    async def _all(self, which: Sequence[str] | JobFilter) -> AsyncGenerator[Job]:
        if isinstance(which, JobFilter):
            async with aclosing(self._client.list(which)) as jobs:
                async for job in jobs:
                    yield job
            return
        for given in which:
            try:
                yield await self._client.get(await full_id(self._client, given))
            except (JobworkerError, CliError) as error:
                self._tell(given, error)

    async def copy(self, outputs: Sequence[_Output]) -> None:
        """Write all that there is and will be."""
        try:
            for output in outputs:
                await self._copy(output, follow=False)
            await self._follow([output for output in outputs if output.followed])
        except ServerUnavailableError:
            for output in outputs:
                await self._end(output)
            raise

    async def _follow(self, outputs: Sequence[_Output]) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for output in outputs:
                    group.create_task(self._copy(output, follow=True))
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None  # of the connection or of stdout, which all jobs share

    async def _copy(self, output: _Output, *, follow: bool) -> None:
        stream = self._client.stream(output.job_id, output.offset, follow=follow, **output.selection)
        try:
            await stream.for_each(lambda chunk: self._write(chunk.stream, output.feed(chunk)))
        except JobworkerError as error:
            if isinstance(error, OffsetOutOfRangeError) and output.offset < error.first:
                # What came next has made room for newer output since the backlog was read.
                gap = Gap(offset=output.offset, length=error.first - output.offset, reason=GapReason.TRIMMED)
                text.say(f"job {output.job_id}: {missing(gap)}")
                output.offset = error.first
                await self._copy(output, follow=follow)
                return
            self._tell(output.job_id, error)
            output.followed = False
        for gap in stream.gaps:
            text.say(f"job {output.job_id}: {missing(gap)}")
        output.offset = stream.offset
        output.selection = output.selection | {"tail": None}
        if follow or not output.followed:
            await self._end(output)

    async def _end(self, output: _Output) -> None:
        """Write what is left, as lines."""
        for stream, lines in output.lines.items():
            await self._write(stream, lines.end())

    async def _write(self, stream: Stream, data: bytes) -> None:
        if not data:
            return
        if stream is not Stream.STDERR:
            await self._stdout.write(data)
            return
        if self._stderr is None:
            self._stderr = _Batches(RawOutput(sys.stderr).write)
        await self._stderr.write(data)

    def _tell(self, job_id: str, error: JobworkerError | CliError) -> None:
        """Say what is wrong with one job; raises it where it is not only with that one."""
        if isinstance(error, ServerUnavailableError):
            raise error
        text.say(str(error) if job_id in str(error) else f"job {job_id}: {error}")
        self.code = self.code or code_of(error)


class _Batches:
    """Writes together what comes while a write is under way.

    Who writes waits until it is written, so each holds one piece at most, however slow the reader is.
    """

    def __init__(self, write: Callable[[bytes], Awaitable[None]]) -> None:
        self._write = write
        self._waiting: list[bytes] = []
        self._writing = asyncio.Lock()

    async def write(self, data: bytes) -> None:
        """Write all of it, before or with what is written later."""
        if data:
            self._waiting.append(data)
        async with self._writing:
            batch, self._waiting = b"".join(self._waiting), []
            if batch:
                await self._write(batch)
