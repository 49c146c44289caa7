"""The output of several jobs as lines that say whose they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import cycle
from typing import TextIO

from jobworker.cli import text
from jobworker.cli.columns import SHORT_ID_CHARS
from jobworker.core.job import Job

MAX_LINE_BYTES = 64 * 1024  # what is kept of a line whose end has not come; a longer line is written in pieces
_MAX_NAME_COLUMNS = 40
_COLOURS = ("cyan", "yellow", "green", "magenta", "blue", "bright_cyan", "bright_yellow", "bright_green")


class JobLines:
    """Makes whole lines of a job's output, each with a prefix; their bytes are otherwise what the job wrote.

    On a terminal the prefix is written again after a carriage return, which would otherwise overwrite it.
    """

    def __init__(self, prefix: bytes, *, terminal: bool) -> None:
        self._prefix = prefix
        self._terminal = terminal
        self._rest = b""

    def feed(self, data: bytes) -> bytes:
        """The lines that are complete with this piece of the output; the rest is kept for the next one."""
        lines = (self._rest + data).split(b"\n")
        if max(map(len, lines)) > MAX_LINE_BYTES:
            lines = [piece for line in lines for piece in _pieces(line)]
        self._rest = lines.pop()
        return self._prefixed(lines) if lines else b""

    def end(self) -> bytes:
        """What is left, as a line."""
        rest, self._rest = self._rest, b""
        return self._prefixed([rest]) if rest else b""

    def _prefixed(self, lines: Sequence[bytes]) -> bytes:
        data = self._prefix + (b"\n" + self._prefix).join(lines) + b"\n"
        if not self._terminal or b"\r" not in data:
            return data
        again = b"\r" + self._prefix
        return data.replace(b"\r", again).replace(again + b"\n", b"\r\n")


def prefixes(jobs: Sequence[Job], stream: TextIO) -> Iterator[bytes]:
    """A prefix for each of these jobs, all equally wide, and where `stream` is a terminal in a colour of its own.

    It is the job's name, the beginning of its id if it has none, or both where they share a name.
    """
    candidates = [_titles(job) for job in jobs]
    count = Counter(title for titles in candidates for title in titles)
    chosen = [next((title for title in titles if count[title] == 1), titles[-1]) for titles in candidates]
    columns = max(map(text.width, chosen), default=0)
    for title, colour in zip(chosen, cycle(_COLOURS), strict=False):
        yield text.coloured(f"{title}{' ' * (columns - text.width(title))} | ", colour, stream).encode()


def _titles(job: Job) -> Sequence[str]:
    """What a job may be called, from the shortest on."""
    short = job.id[:SHORT_ID_CHARS]
    if job.spec.name is None:
        return short, job.id
    name = text.shortened(text.printable(job.spec.name), _MAX_NAME_COLUMNS)
    return name, f"{name}-{short}", f"{name}-{job.id}"


def _pieces(line: bytes) -> Iterator[bytes]:
    for start in range(0, len(line) or 1, MAX_LINE_BYTES):
        yield line[start : start + MAX_LINE_BYTES]
