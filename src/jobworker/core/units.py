"""Durations and sizes as people write them: "30d", "1h30m", "50GiB"."""

from __future__ import annotations

import re
from datetime import timedelta

_SECONDS = {"w": 604_800, "d": 86_400, "h": 3_600, "m": 60, "s": 1, "ms": 0.001}
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|[wdhms])", re.ASCII)
_DURATION = re.compile(rf"(?:{_DURATION_PART.pattern})+", re.ASCII)

_PREFIXES = tuple(enumerate("kmgt", start=1))
_BYTES = {"": 1, **{p: 1000**n for n, p in _PREFIXES}, **{f"{p}i": 1024**n for n, p in _PREFIXES}}
_SHOWN_SIZES = (
    ("TiB", 1024**4),
    ("TB", 1000**4),
    ("GiB", 1024**3),
    ("GB", 1000**3),
    ("MiB", 1024**2),
    ("MB", 1000**2),
    ("KiB", 1024),
)
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]i?|)b?", re.ASCII | re.IGNORECASE)


def parse_duration(text: str) -> timedelta:
    """The duration that a text such as "10s", "1h30m", "0.5h", "250ms" or "0" says. Raises `ValueError`."""
    if text == "0":
        return timedelta(0)
    if not _DURATION.fullmatch(text):
        raise ValueError(f"{text!r} is no duration; write one such as 30d, 12h, 1h30m, 10s or 250ms")
    try:
        return sum(
            (timedelta(seconds=float(n) * _SECONDS[unit]) for n, unit in _DURATION_PART.findall(text)), timedelta()
        )
    except OverflowError:
        raise ValueError(f"{text!r} is longer than any duration that there is") from None


def format_duration(duration: timedelta) -> str:
    """A duration for people and for `parse_duration`, which gives it back to the millisecond."""
    milliseconds = round(duration / timedelta(milliseconds=1))
    parts: list[str] = []
    for unit in ("d", "h", "m", "s", "ms"):
        count, milliseconds = divmod(milliseconds, round(_SECONDS[unit] * 1000))
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def parse_size(text: str) -> int:
    """The number of bytes that a text such as "50GiB", "1.5G", "64k" or "4096" says. Raises `ValueError`.

    k, M, G and T count in thousands, Ki, Mi, Gi and Ti in 1024s, as in SI and IEC; a B after them changes nothing.
    """
    match = _SIZE.fullmatch(text)
    if not match:
        raise ValueError(f"{text!r} is no size; write one such as 50GiB, 64KiB, 2G or a number of bytes")
    # Loaded here, because supervisors load this module and parse nothing.
    from decimal import Decimal  # noqa: PLC0415

    return round(Decimal(match[1]) * _BYTES[match[2].lower()])


def format_size(size: int) -> str:
    """A number of bytes for people and for `parse_size`, which gives it back exactly."""
    for unit, factor in _SHOWN_SIZES:
        if size and size % factor == 0:
            return f"{size // factor}{unit}"
    return f"{size}B"
