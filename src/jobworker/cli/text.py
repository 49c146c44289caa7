"""Text for people: harmless, aligned, coloured on a terminal only, with times as one says them."""

from __future__ import annotations

import os
import shutil
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import TextIO

import click

_AGES = ((86_400, "d"), (3_600, "h"), (60, "m"), (1, "s"))
_DAYS_WITHOUT_HOURS = 14  # from so many days on, hours say nothing

# Terminals, pipes and files that jobs' output has left in the middle of a line, by device and inode. They are the whole
# program's, as what it says is.
_in_line: set[tuple[int, int]] = set()


def printable(text: str) -> str:
    """The text without anything that a terminal would obey: what is not printable is written as an escape."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def say(text: str) -> None:
    """Tell a person something in one line on stderr; stdout has the asked-for data and nothing else.

    Where a job's output has left stderr in the middle of a line, as it does if both are one terminal, that is ended.
    """
    start = ""
    with suppress(OSError, ValueError, AttributeError):  # stderr is closed, or no file
        if (place := _place(sys.stderr.fileno())) in _in_line:
            _in_line.remove(place)
            start = "\n"
    click.echo(f"{start}jobworker: {printable(' '.join(text.split()))}", err=True)


def wrote(descriptor: int, data: bytes) -> None:
    """A job's output was written to an open file of ours."""
    if data.endswith(b"\n"):
        _in_line.discard(_place(descriptor))
    elif data:
        _in_line.add(_place(descriptor))


def _place(descriptor: int) -> tuple[int, int]:
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino


def use_colour(stream: TextIO) -> bool:
    """Whether a stream is a terminal that wants colour; see https://no-color.org."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def coloured(text: str, colour: str | None, stream: TextIO | None = None) -> str:
    """The text in a colour, if stdout, or another stream that it is for, shows colours."""
    return click.style(text, fg=colour) if colour and use_colour(stream or sys.stdout) else text


def width(text: str) -> int:
    """The number of columns that a printable text takes on a terminal."""
    return sum(_columns(char) for char in text)


def shortened(text: str, columns: int) -> str:
    """The text, cut so that it takes at most this many columns."""
    if width(text) <= columns:
        return text
    kept = ""
    for char in text:
        if width(kept) + _columns(char) > columns - 1:
            break
        kept += char
    return kept + "…"


def table(rows: Iterable[Sequence[str]], widths: Sequence[int]) -> Iterable[str]:
    """Lines with columns of at least these widths; the last column is as wide as it is."""
    for row in rows:
        cells = [cell + " " * (wide - width(click.unstyle(cell))) for cell, wide in zip(row, widths, strict=False)]
        yield "  ".join((*cells, *row[len(widths) :])).rstrip()


def terminal_size() -> os.terminal_size | None:
    """The columns and lines of the terminal that shows stdout; `None` if it is no terminal."""
    return shutil.get_terminal_size() if sys.stdout.isatty() else None


def terminal_columns() -> int | None:
    """How wide the terminal is that shows stdout; `None` if it is no terminal."""
    size = terminal_size()
    return None if size is None else size.columns


def age(duration: timedelta) -> str:
    """A duration in its largest unit, or the two largest: "45s", "3m", "2h 5m", "1d 4h", "30d"."""
    seconds = max(0, int(duration.total_seconds()))
    for index, (size, unit) in enumerate(_AGES[:-1]):
        count, rest = divmod(seconds, size)
        if not count:
            continue
        smaller, smaller_unit = _AGES[index + 1]
        if unit == "m" or rest < smaller or (unit == "d" and count >= _DAYS_WITHOUT_HOURS):
            return f"{count}{unit}"
        return f"{count}{unit} {rest // smaller}{smaller_unit}"
    return f"{seconds}s"


def when(time: datetime, now: datetime) -> str:
    """A time as a date, and how long ago that was."""
    return f"{time:%Y-%m-%d %H:%M:%S} UTC ({age(now - time)} ago)"


def size(count: int) -> str:
    """A number of bytes, roughly: "12 B", "3.4 KiB", "1.0 GiB"."""
    amount = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:  # noqa: PLR2004 -- the factor of these units
            return f"{count} B" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"


def _columns(char: str) -> int:
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1
