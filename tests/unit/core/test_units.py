"""Durations and sizes are read as people write them, and never misread."""

from __future__ import annotations

from datetime import timedelta

import pytest

from jobworker.core.units import format_duration, format_size, parse_duration, parse_size


@pytest.mark.parametrize(
    "text, duration",
    [
        ("0", timedelta(0)),
        ("0s", timedelta(0)),
        ("10s", timedelta(seconds=10)),
        ("250ms", timedelta(milliseconds=250)),
        ("5m", timedelta(minutes=5)),
        ("1h30m", timedelta(minutes=90)),
        ("1.5h", timedelta(minutes=90)),
        ("2d12h", timedelta(hours=60)),
        ("2w", timedelta(days=14)),
        ("1m500ms", timedelta(seconds=60.5)),
    ],
)
def test_a_duration_is_read(text: str, duration: timedelta) -> None:
    """Every unit and combination means what people mean by it, and m and ms are told apart."""
    assert parse_duration(text) == duration
    assert parse_duration(format_duration(duration)) == duration


@pytest.mark.parametrize("text", ["", "10", "s", "-1s", "1 h", "1x", "10s ", "1h30", "1e3s", "٣s", "1.s", "inf"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    """A number without a unit is ambiguous, and so refused like any other nonsense, with examples."""
    with pytest.raises(ValueError, match="is no duration; write one such as"):
        parse_duration(text)


def test_a_duration_that_python_cannot_hold_is_refused() -> None:
    """Even a duration longer than the universe has lasted gives a clear error."""
    with pytest.raises(ValueError, match="longer than any duration"):
        parse_duration("9" * 30 + "d")


@pytest.mark.parametrize(
    "text, size",
    [
        ("0", 0),
        ("4096", 4096),
        ("4096B", 4096),
        ("64k", 64_000),
        ("64K", 64_000),
        ("64KiB", 65_536),
        ("64Ki", 65_536),
        ("1.5G", 1_500_000_000),
        ("1.5 GiB", 1_610_612_736),
        ("50GiB", 50 * 2**30),
        ("2TB", 2_000_000_000_000),
        ("1ti", 2**40),
        ("1152921504606846977", 2**60 + 1),
    ],
)
def test_a_size_is_read(text: str, size: int) -> None:
    """Thousands and 1024s are told apart, in either case of letters, with or without a B."""
    assert parse_size(text) == size
    assert parse_size(format_size(size)) == size


@pytest.mark.parametrize("text", ["", "GiB", "-1", "1e9", "10 bananas", "1PB", "٣k", "1.GiB", "nan"])
def test_what_is_no_size_is_refused(text: str) -> None:
    """Nonsense is refused with examples."""
    with pytest.raises(ValueError, match="is no size; write one such as"):
        parse_size(text)
