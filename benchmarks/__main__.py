"""Measure everything and print one table: `make bench`, or `python -m benchmarks`.

The server, the client and the limits of the machine are measured in turn, round by round, so that what else the machine
does meanwhile meets all of them. All figures are medians of the rounds; what takes long is measured once.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path

from benchmarks import cgroups, commands, ended, listing, live, machine, memory, output, pages, rest, ssh, starts
from benchmarks.figures import Figures, Measured
from benchmarks.report import report, write
from benchmarks.rest import Rest
from benchmarks.server import Certificates, running_server

_OPENSSH, _REST = "OpenSSH", "a server at rest"

Part = Callable[[], Iterable[Measured]]


def main() -> None:
    """Read the command line, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="how often everything is measured (default: %(default)s)")
    parser.add_argument("--mebibytes", type=int, default=256, help="output to follow (default: %(default)s)")
    parser.add_argument("--listed", type=int, default=100_000, help="jobs to list (default: %(default)s)")
    parser.add_argument("--crowd", type=int, default=1000, help="followers of one job (default: %(default)s)")
    parser.add_argument("--ended", type=int, default=10_000, help="jobs to run to their end (default: %(default)s)")
    parser.add_argument("--running", type=int, default=Rest().running, help="idle jobs (default: %(default)s)")
    parser.add_argument("--folder", type=Path, help="where to keep it all meanwhile, on the disk to be measured")
    parser.add_argument("--only", default="", help="measure only the parts whose title has this in it")
    parser.add_argument("--write", type=Path, metavar="DOCS", help="put the tables and a plot into this folder's page")
    options = parser.parse_args()
    began, load = time.perf_counter(), os.getloadavg()[1]
    with tempfile.TemporaryDirectory(prefix="jobworker-bench-", dir=options.folder) as folder, ExitStack() as stack:
        figures = _measure(Path(folder), options, stack)
    text = report(figures, rounds=options.rounds, seconds=time.perf_counter() - began, load=load)
    print(text)
    if options.write is not None:
        write(options.write, text, figures)


def _measure(folder: Path, options: argparse.Namespace, stack: ExitStack) -> Figures:
    """All rounds, in a folder of their own. The servers end with the stack."""
    certificates = Certificates.make(folder / "pki")
    database = folder / "listing.db"
    output_bytes = options.mebibytes * 1024**2
    at_rest = Rest(ended=options.listed, running=options.running, followers=min(100, options.running))
    server = stack.enter_context(running_server(folder / "process", certificates))
    durable = stack.enter_context(running_server(folder / "power", certificates, "--durability", "power"))
    figures = Figures()

    def measure_memory() -> Iterable[Measured]:
        with running_server(_fresh(folder), certificates) as new:
            yield from memory.measure(new)

    in_turn: dict[str, Part] = {
        "the machine": lambda: machine.measure(_fresh(folder), certificates, output_bytes=output_bytes),
        "starts": lambda: starts.measure_starts(server, "process"),
        "starts that survive a power cut": lambda: starts.measure_starts(durable, "power"),
        "control groups": cgroups.measure,
        "first output": lambda: starts.measure_first_bytes(server),
        "connections": lambda: starts.measure_connections(server),
        "output": lambda: output.measure(server, output_bytes=output_bytes),
        "live output": lambda: live.measure(server, output_bytes=output_bytes),
        "memory of a running job": measure_memory,
        "the command line": lambda: commands.measure(server),
        "lists": lambda: pages.measure(database, options.listed),
    }
    once: dict[str, Part] = {
        "many followers": lambda: live.measure_crowd(server, options.crowd),
        "ended jobs": lambda: ended.measure(server, options.ended),
        _REST: lambda: rest.measure(folder, certificates, at_rest, database),
    }
    if options.only in _OPENSSH:
        try:
            config = stack.enter_context(ssh.running_sshd(folder / "ssh"))
        except ssh.NoSshError as reason:
            figures.leave_out(_OPENSSH, str(reason))
        else:
            in_turn[_OPENSSH] = lambda: ssh.measure(config, output_bytes=output_bytes)
    if any(options.only in title for title in ("lists", _REST)):
        _say("making a database of jobs to list and to remember")
        listing.fill(database, options.listed)
    rounds = [(f"round {number} of {options.rounds}", in_turn) for number in range(1, options.rounds + 1)]
    for when, parts in [*rounds, ("once", once)]:
        for title, part in parts.items():
            if options.only in title:
                _say(f"{when}: {title}")
                figures.add(title, part())
                os.sync()  # what one part has left to be written is not to slow down the next
    return figures


def _fresh(folder: Path) -> Path:
    """A folder in it that stays to the end: where many files were deleted, ext4 makes new ones slowly for minutes."""
    return Path(tempfile.mkdtemp(dir=folder))


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
