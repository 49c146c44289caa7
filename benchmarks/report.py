"""What a run has found: printed and, with its plot, put into the documentation."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from pathlib import Path

from benchmarks import chart, goals
from benchmarks.figures import Figures

PAGE, PLOT = "performance.md", "performance.svg"
_BEGIN, _END = "<!-- begin of what `make bench` writes -->\n", "<!-- end of what `make bench` writes -->\n"


def report(figures: Figures, *, rounds: int, seconds: float, load: float) -> str:
    """All tables, the machine and the command, in Markdown. `load` is that of the machine before the run."""
    flags = shlex.join(sys.argv[1:])
    command = "make bench" if not flags else f"make bench BENCH_FLAGS={shlex.quote(flags)}"
    return f"""{figures.table()}

{goals.table(figures)}

`{command}`: {rounds} rounds in {seconds:.0f} s; {os.cpu_count()} cores ({_processor()}), Linux {platform.release()}, \
Python {platform.python_version()} in {sys.base_prefix}; load of the machine in the five minutes before: {load:.1f}
"""


def write(folder: Path, text: str, figures: Figures) -> None:
    """Put the report between the marks of the page in `folder`, and the plot beside the page. Raises `ValueError`."""
    page = folder / PAGE
    before, begin, rest = page.read_text().partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise ValueError(f"{page} has no two lines that say where the report goes")
    page.write_text(f"{before}{begin}\n![the figures beside those of others]({PLOT})\n\n{text}\n{end}{after}")
    (folder / PLOT).write_text(chart.svg(figures))


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
