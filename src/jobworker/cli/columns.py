"""Tables that fit a terminal: what matters least is cut, and then left out, so that no line is wrapped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import click

from jobworker.cli import text

ID = "ID"
SHORT_ID_CHARS = 8  # enough to name a job among thousands

_GAP = 2  # columns of the terminal between two of a table, as `text.table` leaves


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """What is given up for the last column of a table, which takes what the others leave.

    `shortest` is how wide columns are at least that can be cut, in the order in which that is done; `dropped` are those
    that are then left out, in order. `last` is the width that the last column is to have.
    """

    shortest: Mapping[str, int]
    dropped: Sequence[str]
    last: int

    def fit(self, widths: Mapping[str, int], columns: int) -> Mapping[str, int]:
        """The columns of a table, but for the last one, that such a terminal has room for, and their widths."""
        fitted = dict(widths)

        def excess() -> int:
            return sum(fitted.values()) + _GAP * len(fitted) + self.last - columns

        for name, width in self.shortest.items():
            fitted[name] -= min(max(excess(), 0), max(fitted[name] - width, 0))
        for name in self.dropped:
            if excess() > 0:
                del fitted[name]
        return fitted


def fitted_table(
    rows: Sequence[Sequence[str]], header: Sequence[str], widths: Mapping[str, int], columns: int | None
) -> Iterator[str]:
    """The lines of a table that has the columns of `widths` and, as the last of `header`, one for the rest.

    Nothing is cut for a `columns` of `None`, which is no terminal. The beginning of an id is as good as all of it, so
    it has no mark where it is cut.
    """
    left = None if columns is None else max(columns - sum(widths.values()) - _GAP * len(widths), 1)

    def cut(name: str, cell: str) -> str:
        width = widths.get(name, left)
        if columns is None or width is None or text.width(click.unstyle(cell)) <= width:
            return cell
        return cell[:width] if name == ID else text.shortened(cell, width)

    for row in rows:
        named = dict(zip(header, row, strict=True))
        yield from text.table([[cut(name, named[name]) for name in (*widths, header[-1])]], list(widths.values()))
