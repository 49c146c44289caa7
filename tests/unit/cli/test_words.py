"""Values as people write them, and text as a terminal may show it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import click
import pytest

from jobworker.cli import text
from jobworker.cli.params import Assignment, Duration, Moment, Signal, Utf8


@pytest.mark.parametrize(
    "written, value",
    [
        ("1h30m", timedelta(minutes=90)),
        ("250ms", timedelta(milliseconds=250)),
        ("0", timedelta(0)),
        ("5", timedelta(seconds=5)),
        ("1.5", timedelta(seconds=1.5)),
    ],
)
def test_durations(written: str, value: timedelta) -> None:
    """Durations are written with their units; a number alone is of seconds."""
    assert Duration().convert(written, None, None) == value


def test_moments() -> None:
    """A time has a zone or is local; a duration is before now."""
    assert Moment().convert("2026-01-31T12:00Z", None, None) == datetime(2026, 1, 31, 12, tzinfo=UTC)
    assert Moment().convert("2026-01-31T12:00+02:00", None, None) == datetime(2026, 1, 31, 10, tzinfo=UTC)
    local = datetime(2026, 1, 31).astimezone()
    assert Moment().convert("2026-01-31", None, None) == local
    before = datetime.now(UTC) - timedelta(hours=2)
    assert timedelta(0) <= Moment().convert("2h", None, None) - before < timedelta(minutes=1)


@pytest.mark.parametrize("zone", [" UTC", "Z", " Z"])
def test_moments_as_they_are_shown(zone: str) -> None:
    """A time can be given as this program prints it."""
    noon = datetime(2026, 1, 31, 12, tzinfo=UTC)
    assert Moment().convert(f"2026-01-31 12:00:00{zone}", None, None) == noon


def test_moments_of_today() -> None:
    """A clock time alone is of today, in the zone that it says, or else here."""
    here = Moment().convert("00:00", None, None).astimezone()
    assert (here.hour, here.minute) == (0, 0)
    assert timedelta(0) <= datetime.now(UTC) - here < timedelta(hours=26)
    there = Moment().convert("00:00Z", None, None)
    assert (there.hour, there.minute) == (0, 0)
    assert timedelta(0) <= datetime.now(UTC) - there < timedelta(hours=25)


def test_assignments() -> None:
    """The first equals sign separates; the rest may have more, or be empty."""
    assert Assignment().convert("A=b=c", None, None) == ("A", "b=c")
    assert Assignment().convert("A=", None, None) == ("A", "")


@pytest.mark.parametrize("written", ["TERM", "term", "SIGTERM", "sigterm", "15"])
def test_signals(written: str) -> None:
    """A signal has a name, with or without SIG, and a number."""
    assert Signal().convert(written, None, None) == 15


@pytest.mark.parametrize(
    "kind, written",
    [
        (Duration(), "10x"),
        (Duration(), ""),
        (Moment(), "soon"),
        (Moment(), "25:00"),
        (Moment(), "99999999d"),
        (Assignment(), "A"),
        (Assignment(), "=b"),
        (Signal(), "0"),
        (Signal(), "65"),
        (Utf8(), "\udcff"),
    ],
)
def test_wrong_values(kind: click.ParamType[object], written: str) -> None:
    """What is wrong is refused as a wrong command line."""
    with pytest.raises(click.BadParameter):
        kind.convert(written, None, None)


@pytest.mark.parametrize(
    "unsafe, safe",
    [
        ("plain ünïcödé 日本 \u0301", "plain ünïcödé 日本 \u0301"),
        ("\x1b[31m", r"\x1b[31m"),
        ("\x9b31m", r"\x9b31m"),
        ("a\r\nb\tc\0\x7f", r"a\r\nb\tc\x00\x7f"),
        ("\u202eevil", r"\u202eevil"),
        ("\udc80", r"\udc80"),
    ],
)
def test_printable(unsafe: str, safe: str) -> None:
    """Nothing that a terminal would obey is left, and nothing else is changed."""
    assert text.printable(unsafe) == safe


def test_columns() -> None:
    """Text is as wide as a terminal shows it, and cut so that it fits."""
    assert text.width("abc") == 3
    assert text.width("日本") == 4
    assert text.width("e\u0301") == 1
    assert text.shortened("abcdef", 6) == "abcdef"
    assert text.shortened("abcdefg", 6) == "abcde…"
    assert text.shortened("日本語", 4) == "日…"


def test_table() -> None:
    """Columns are aligned by what is seen of them; the last one is as long as it is."""
    red = click.style("red", fg="red")
    rows = [("a", "日本", "x"), ("bcd", red, "y" * 9), ("", "", "")]
    assert list(text.table(rows, [3, 5])) == ["a    日本   x", f"bcd  {red}    yyyyyyyyy", ""]


@pytest.mark.parametrize(
    "seconds, shown",
    [
        (-1, "0s"),
        (0.9, "0s"),
        (59, "59s"),
        (60, "1m"),
        (3599, "59m"),
        (3600, "1h"),
        (7500, "2h 5m"),
        (86_400, "1d"),
        (100_800, "1d 4h"),
        (86_400 * 30 + 7200, "30d"),
    ],
)
def test_age(seconds: float, shown: str) -> None:
    """A duration is shown by its largest units."""
    assert text.age(timedelta(seconds=seconds)) == shown


@pytest.mark.parametrize(
    "count, shown", [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (2**30, "1.0 GiB"), (5 * 2**40, "5.0 TiB")]
)
def test_size(count: int, shown: str) -> None:
    """A size is shown in the unit that fits."""
    assert text.size(count) == shown
