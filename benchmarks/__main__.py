"""Measure everything and print one table: `make bench`, or `python -m benchmarks`.

The server, the client and the limits of the machine are measured in turn, round by round, so that what else the machine
does meanwhile meets all of them. All figures are medians of the rounds.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path

from benchmarks import cgroups, commands, listing, machine, memory, output, pages, starts
from benchmarks.figures import Figures, Measured
from benchmarks.server import Certificates, running_server

Part = tuple[str, Callable[[], Iterable[Measured]]]


def main() -> None:
    """Read the command line, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="how often everything is measured (default: %(default)s)")
    parser.add_argument("--mebibytes", type=int, default=256, help="output to follow (default: %(default)s)")
    parser.add_argument("--listed", type=int, default=100_000, help="jobs to list (default: %(default)s)")
    parser.add_argument("--folder", type=Path, help="where to keep it all meanwhile, on the disk to be measured")
    parser.add_argument("--only", default="", help="measure only the parts whose title has this in it")
    options = parser.parse_args()
    began, load = time.perf_counter(), os.getloadavg()[1]
    with tempfile.TemporaryDirectory(prefix="jobworker-bench-", dir=options.folder) as folder:
        figures = measure(
            Path(folder),
            rounds=options.rounds,
            output_bytes=options.mebibytes * 1024**2,
            listed=options.listed,
            only=options.only,
        )
    print(figures.table())
    print(
        f"\n{options.rounds} rounds in {time.perf_counter() - began:.0f} s; {os.cpu_count()} cores, "
        f"Linux {platform.release()}, Python {platform.python_version()}; "
        f"load of the machine in the five minutes before: {load:.1f}"
    )


def measure(folder: Path, *, rounds: int, output_bytes: int, listed: int, only: str) -> Figures:
    """All rounds, in a folder of their own."""
    certificates = Certificates.make(folder / "pki")
    database = folder / "listing.db"
    with ExitStack() as stack:
        server = stack.enter_context(running_server(folder / "process", certificates))
        durable = stack.enter_context(running_server(folder / "power", certificates, "--durability", "power"))

        def measure_memory() -> Iterable[Measured]:
            with (
                tempfile.TemporaryDirectory(dir=folder) as fresh,
                running_server(Path(fresh, "m"), certificates) as new,
            ):
                yield from memory.measure(new)

        parts: list[Part] = [
            ("the machine", lambda: machine.measure(folder, certificates, output_bytes=output_bytes)),
            ("starts", lambda: starts.measure_starts(server, "process")),
            ("starts that survive a power cut", lambda: starts.measure_starts(durable, "power")),
            ("control groups", cgroups.measure),
            ("first output", lambda: starts.measure_first_bytes(server)),
            ("connections", lambda: starts.measure_connections(server)),
            ("output", lambda: output.measure(server, output_bytes=output_bytes)),
            ("memory of a running job", measure_memory),
            ("the command line", lambda: commands.measure(server)),
            ("lists", lambda: pages.measure(database, listed)),
        ]
        parts = [(title, part) for title, part in parts if only in title]
        if any(title == "lists" for title, _ in parts):
            _say("making a database of jobs to list")
            listing.fill(database, listed)
        figures = Figures()
        for number in range(1, rounds + 1):
            for title, part in parts:
                _say(f"round {number} of {rounds}: {title}")
                figures.add(title, part())
                os.sync()  # what one part has left to be written is not to slow down the next
    return figures


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
