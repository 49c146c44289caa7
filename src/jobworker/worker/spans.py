"""The parts of an output that an index tells of, and which of them belong to a selection."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta

from jobworker.core.output import Selection
from jobworker.executors.base import OutputIndex, Span

EPOCH = datetime.fromtimestamp(0, UTC)
BATCH = 4096  # spans that are read at once


def first_span(index: OutputIndex, holds: Callable[[Span], bool]) -> int:
    """The number of the first span for which something holds that holds for all that follow."""
    return bisect_left(range(len(index)), x=True, key=lambda number: holds(index.spans(number, 1)[0]))


def merged(spans: Iterable[Span], selection: Selection) -> Iterator[Span]:
    """Spans of the same stream as one, unless times matter."""
    if selection.times or selection.since is not None or selection.until is not None:
        yield from spans
        return
    run: Span | None = None
    for span in spans:
        if run is not None and span.stream is run.stream:
            run = run._replace(end=span.end)
        else:
            if run is not None:
                yield run
            run = span
    if run is not None:
        yield run


def belongs(span: Span, selection: Selection) -> bool:
    """Whether a span belongs to a selection, but for `until`; what is missing may."""
    if selection.since is not None and span.time < nanoseconds(selection.since):
        return False
    return span.stream is None or not selection.streams or span.stream in selection.streams


def nanoseconds(time: datetime) -> int:
    """A time as the index has it."""
    return (time - EPOCH) // timedelta(microseconds=1) * 1000
