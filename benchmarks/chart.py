"""The figures as bars in an SVG, ours beside the peers' and the machine's: the median, and from the least to the most.

Written by hand, since nothing else here needs a library that draws.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

from benchmarks import live, machine, ssh
from benchmarks.figures import Figures

_OURS, _PEER, _MACHINE = "#2563a8", "#c2762e", "#8a8f98"
_LEGEND = {"jobworker": _OURS, "OpenSSH": _PEER, "this machine": _MACHINE}

_WIDTH, _NAMES, _VALUES = 900, 330, 90  # pixels: in all, for the names at the left, for the values at the right
_BARS = _WIDTH - _NAMES - _VALUES
_LINE, _BAR = 24, 14  # heights


@dataclass(frozen=True, kw_only=True, slots=True)
class Panel:
    """Bars that share a logarithmic scale: names of figures, with the colour of whose they are."""

    title: str
    bars: Sequence[tuple[str, str]]


PANELS = (
    Panel(
        title="start (ssh, spawn: to its end), ms",
        bars=(
            (f"{machine.SPAWN}, p50", _MACHINE),
            ("start (process), p50", _OURS),
            ("start (power), p50", _OURS),
            (f"{ssh.SHARED}, p50", _PEER),
            (f"{ssh.NEW}, p50", _PEER),
        ),
    ),
    Panel(
        title="to the first byte of output, ms",
        bars=(
            (f"{machine.FIRST_BYTE}, p50", _MACHINE),
            (f"{live.LINE}, p50", _OURS),
            ("start to first output byte, p50", _OURS),
            (f"{ssh.SHARED}: {ssh.FIRST_BYTE}, p50", _PEER),
            (f"{ssh.NEW}: {ssh.FIRST_BYTE}, p50", _PEER),
        ),
    ),
    Panel(
        title="output, MB/s",
        bars=(
            (machine.WRITE, _MACHINE),
            (machine.SPLICE, _MACHINE),
            ("a job's output kept", _OURS),
            (machine.TLS, _MACHINE),
            (machine.TLS_SMALL, _MACHINE),
            ("one follower", _OURS),
            (live.LIVE, _OURS),
            ("10 followers in sum", _OURS),
            (f"{ssh.SHARED}: {ssh.OUTPUT}", _PEER),
            (f"{ssh.NEW}: {ssh.OUTPUT}", _PEER),
        ),
    ),
)


def svg(figures: Figures) -> str:
    """The picture. Figures that were not measured are left out."""
    parts = list(_legend(_LINE))
    y = 2 * _LINE
    for panel in PANELS:
        bars = [(name, colour) for name, colour in panel.bars if figures.median(name) is not None]
        if bars:
            parts += [_text(0, y + _LINE, panel.title, font_weight="bold"), *_panel(figures, bars, y + _LINE)]
            y += (len(bars) + 2) * _LINE
    size = f'viewBox="0 0 {_WIDTH} {y}" width="{_WIDTH}" height="{y}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="13">'
    return "\n".join([head, '<rect width="100%" height="100%" fill="white"/>', *parts, "</svg>\n"])


def _legend(y: int) -> Iterator[str]:
    for number, (name, colour) in enumerate(_LEGEND.items()):
        x = _NAMES + number * 130
        yield f'<rect x="{x}" y="{y - _BAR + 2}" width="{_BAR}" height="{_BAR}" fill="{colour}"/>'
        yield _text(x + _BAR + 6, y, name)


def _panel(figures: Figures, bars: Sequence[tuple[str, str]], top: int) -> Iterator[str]:
    """Each bar from the power of ten below all values."""
    spreads = [figures.spread(name) or (1.0, 1.0) for name, _ in bars]
    lowest = math.floor(math.log10(min(least for least, _ in spreads)))
    highest = max(math.log10(max(most for _, most in spreads)), lowest + 1)

    def x_of(value: float) -> float:
        return _NAMES + _BARS * (math.log10(value) - lowest) / (highest - lowest)

    for exponent in range(lowest, math.floor(highest) + 1):
        x, bottom = x_of(10.0**exponent), top + (len(bars) + 0.4) * _LINE
        yield f'<path d="M{x:.1f} {top + 8}V{bottom:.1f}" stroke="#d8dadd"/>'
        yield _text(x, top, f"{10.0**exponent:g}", text_anchor="middle", fill=_MACHINE) if exponent > lowest else ""
    for number, ((name, colour), (least, most)) in enumerate(zip(bars, spreads, strict=True), start=1):
        y, median = top + number * _LINE, figures.median(name) or 1.0
        yield _text(_NAMES - 8, y, name, text_anchor="end")
        yield (
            f'<rect x="{_NAMES}" y="{y - _BAR + 3}" width="{x_of(median) - _NAMES:.1f}" height="{_BAR}" '
            f'fill="{colour}" fill-opacity="0.75"/>'
        )
        yield f'<path d="M{x_of(least):.1f} {y - 4}H{x_of(most):.1f}" stroke="black" stroke-width="2"/>'
        yield _text(_WIDTH - _VALUES + 8, y, figures.text(name) or "")


def _text(x: float, y: float, text: str, **style: str) -> str:
    attributes = "".join(f' {name.replace("_", "-")}="{value}"' for name, value in style.items())
    return f'<text x="{x:.1f}" y="{y:.1f}"{attributes}>{escape(text)}</text>'
