"""The output of one job, as the job itself would write it here."""

from __future__ import annotations

import sys
from typing import TextIO

from jobworker.cli import text
from jobworker.cli.exits import CliError
from jobworker.cli.raw_output import RawOutput
from jobworker.client import Chunk, Gap, GapReason, OutputStream, Stream
from jobworker.core.job import Job
from jobworker.core.output import OutputMode

_REASONS = {
    GapReason.LIMIT: "it came after the output limit",
    GapReason.TRIMMED: "the oldest made room for newer output",
    GapReason.DISK_FULL: "the server's disk was full",
}

_UNKNOWN = b"-".ljust(len("2006-01-02T15:04:05.000000Z "))


def check_split(job: Job) -> None:
    """Raise `CliError` if the streams of a job are not told apart."""
    if job.spec.output is OutputMode.COMBINED:
        raise CliError(f"the streams of job {job.id} are not told apart; start one with --output-streams split")


class JobOutput:
    """Writes a job's stderr to ours if the job's output is split, and everything else to stdout.

    With `timestamps`, each line begins with the time at which its beginning arrived at the server. What is missing is
    told on stderr, once for each gap, as soon as it is over.
    """

    def __init__(self, *, timestamps: bool = False) -> None:
        self._stdout = _Target(sys.stdout, timestamps=timestamps)
        self._stderr: _Target | None = None
        self._timestamps = timestamps

    async def copy(self, stream: OutputStream) -> Job:
        """Write all that a stream gives, and return the job as it was at the end. Raises as `RawOutput.write` does."""
        told = 0

        def tell() -> None:
            nonlocal told
            for gap in stream.gaps[told:]:
                text.say(missing(gap))
            told = len(stream.gaps)

        async def write(chunk: Chunk) -> None:
            if told < len(stream.gaps):
                tell()
            await self._target(chunk.stream).write(chunk)

        try:
            return await stream.for_each(write)
        finally:
            tell()

    def _target(self, stream: Stream) -> _Target:
        if stream is not Stream.STDERR:
            return self._stdout
        if self._stderr is None:
            self._stderr = _Target(sys.stderr, timestamps=self._timestamps)
        return self._stderr


class StampedLines:
    """Puts the time at which a line begins before it; the bytes of lines are not changed, and none is held back.

    A time that is not known, as the record of it was lost, is a dash in a column as wide.
    """

    def __init__(self) -> None:
        self._in_line = False

    def feed(self, chunk: Chunk) -> bytes:
        """A chunk with stamps."""
        stamp = _UNKNOWN if chunk.time is None else f"{chunk.time:%Y-%m-%dT%H:%M:%S.%f}Z ".encode()
        first = b"" if self._in_line else stamp
        self._in_line = not chunk.data.endswith(b"\n")
        return first + chunk.data[:-1].replace(b"\n", b"\n" + stamp) + chunk.data[-1:]


class _Target:
    """One of our own streams."""

    def __init__(self, stream: TextIO | None, *, timestamps: bool) -> None:
        self._output = None if stream is None else RawOutput(stream)  # stderr may be closed: then nobody wants it
        self._lines = StampedLines() if timestamps else None

    async def write(self, chunk: Chunk) -> None:
        if self._output is not None:
            await self._output.write(chunk.data if self._lines is None else self._lines.feed(chunk))


def missing(gap: Gap) -> str:
    """What is missing, where and why."""
    return f"{text.size(gap.length)} of output are missing at offset {gap.offset}: {_REASONS[gap.reason]}"
