"""What was measured, round by round, and the table of it."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

_COLUMNS = ("", "median", "least to most", "beside")


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """One value of one round. `beside` names the figure that it is to be compared with."""

    name: str
    value: float
    unit: str
    beside: str | None = None


@dataclass(kw_only=True, slots=True)
class _Row:
    group: str
    unit: str
    beside: str | None
    values: list[float] = field(default_factory=list[float])

    @property
    def median(self) -> float:
        return statistics.median(self.values)


class Figures:
    """All figures of a run, in the order in which they came up first."""

    def __init__(self) -> None:
        self._rows: dict[str, _Row] = {}
        self._left_out: dict[str, str] = {}

    def add(self, group: str, round_: Iterable[Measured]) -> None:
        """Take up what one round has given."""
        for one in round_:
            row = self._rows.setdefault(one.name, _Row(group=group, unit=one.unit, beside=one.beside))
            row.values.append(one.value)

    def leave_out(self, group: str, reason: str) -> None:
        """Say in the table why a group has no figures."""
        self._left_out[group] = reason

    def median(self, name: str) -> float | None:
        """Of all rounds; `None` where it was not measured."""
        return None if (row := self._rows.get(name)) is None else row.median

    def spread(self, name: str) -> tuple[float, float] | None:
        """The least and the most of all rounds; `None` where it was not measured."""
        return None if (row := self._rows.get(name)) is None else (min(row.values), max(row.values))

    def text(self, name: str) -> str | None:
        """The median with its unit; `None` where it was not measured."""
        return None if (row := self._rows.get(name)) is None else _with_unit(row.median, row.unit)

    def table(self) -> str:
        """The table in Markdown: the median of the rounds, how far they lie apart, and the ratio to what is beside."""
        groups: dict[str, list[Sequence[str]]] = {}
        for name, row in self._rows.items():
            groups.setdefault(row.group, []).append(self._cells(name, row))
        lines: list[Sequence[str]] = []
        for group, rows in groups.items():
            lines += [(f"**{group}**", "", "", ""), *rows]
        for group, reason in self._left_out.items():
            lines += [(f"**{group}**", "left out", reason, "")]
        return markdown(_COLUMNS, lines)

    def _cells(self, name: str, row: _Row) -> Sequence[str]:
        spread = f"{number(min(row.values))} to {number(max(row.values))}"
        limit = None if row.beside is None else self._rows.get(row.beside)
        ratio = "" if limit is None else f"{row.median / limit.median:.2g} x {row.beside}"
        return name, _with_unit(row.median, row.unit), spread, ratio


def markdown(columns: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table in Markdown that is also one for the eye."""
    widths = [max(map(len, cells)) for cells in zip(columns, *lines, strict=True)]
    rule = ["-" * width for width in widths]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
        for line in (columns, rule, *lines)
    )


def percentile(values: Sequence[float], percent: int) -> float:
    """The value that `percent` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]


def latency(name: str, seconds: Sequence[float], *, beside: str | None = None) -> list[Measured]:
    """The median and the 95th percentile of some durations, in milliseconds."""
    return [
        Measured(name=f"{name}, p50", value=percentile(seconds, 50) * 1000, unit="ms", beside=beside),
        Measured(name=f"{name}, p95", value=percentile(seconds, 95) * 1000, unit="ms"),
    ]


def number(value: float) -> str:
    """With two or three digits that count, and none for a whole number."""
    if value == round(value) or value >= 100:
        return f"{value:.0f}"
    return f"{value:.2f}" if value < 10 else f"{value:.1f}"


def _with_unit(value: float, unit: str) -> str:
    return f"{number(value)} {unit}".rstrip()
