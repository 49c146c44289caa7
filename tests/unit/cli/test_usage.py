"""What jobs have used, as it is shown."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from jobworker.cli.stats import table
from jobworker.cli.usage import HEADER, Load, usage_cells, usage_json, usage_rows
from jobworker.core.spec import JobSpec
from jobworker.core.usage import Usage
from tests.support.jobs import accepted_job, started

MIB = 1024**2
FULL = Usage(
    wall_seconds=100,
    cpu_seconds=50,
    user_seconds=40,
    system_seconds=10,
    throttled_seconds=2.5,
    throttled_periods=7,
    memory_bytes=MIB,
    memory_peak_bytes=2 * MIB,
    oom_kills=1,
    io_read_bytes=1000,
    io_write_bytes=100 * MIB,
    io_read_operations=3,
    io_write_operations=4,
    pids=2,
    pids_peak=9,
    cpu_pressure_seconds=1,
    memory_pressure_seconds=0,
    io_pressure_seconds=0.5,
)


def test_the_promised_names() -> None:
    """Scripts rely on these names; none is renamed or removed."""
    shown = usage_json(FULL)
    assert shown is not None
    promised = (
        "cpu_seconds user_seconds system_seconds throttled_seconds throttled_periods memory_peak_bytes oom_kills "
        "io_read_bytes io_write_bytes io_read_operations io_write_operations pids_peak wall_seconds"
    )
    assert set(promised.split()) <= shown.keys()
    assert usage_json(None) is None


def test_all_that_is_known_is_told() -> None:
    """A line for each resource."""
    assert dict(usage_rows(FULL)) == {
        "cpu": "50.00s (user 40.00s, system 10.00s)",
        "held back": "2.50s by the CPU limit, in 7 periods",
        "memory": "1.0 MiB now, 2.0 MiB at most",
        "oom kills": "1",
        "disk": "read 1000 B in 3 operations, written 100.0 MiB in 4",
        "processes": "2 now, 9 at most",
        "waited": "for CPU 1.00s, I/O 0.50s",
    }


def test_nothing_is_told_of_what_is_not_known() -> None:
    """Without a kernel that tells, there is nothing to show, and in a table a dash."""
    unknown = Usage(wall_seconds=1)
    assert list(usage_rows(unknown)) == []
    assert set(usage_cells(unknown, Load.between(None, unknown))) == {"-"}


@pytest.mark.parametrize(
    "before, share, written",
    [
        (None, "50%", "1.0 MiB"),
        (Usage(wall_seconds=90, cpu_seconds=35, io_write_bytes=50 * MIB), "150%", "5.0 MiB"),
        (FULL, "-", "-"),
        (replace(FULL, wall_seconds=99.95), "-", "-"),
    ],
)
def test_a_load_is_of_the_time_since_the_look_before(before: Usage | None, share: str, written: str) -> None:
    """Without a look before it is the average since the start; of hardly any time nothing is known."""
    cells = dict(zip(HEADER, usage_cells(FULL, Load.between(before, FULL)), strict=True))
    assert (cells["CPU"], cells["WRITE/S"], cells["PROCS"]) == (share, written, "2")


@pytest.mark.parametrize(
    "columns, header",
    [
        (40, "ID CPU MEMORY NAME OR COMMAND"),
        (80, "ID OWNER CPU MEMORY READ/S WRITE/S PROCS NAME OR COMMAND"),
        (150, "ID OWNER CPU CPU TIME MEMORY PEAK READ/S WRITE/S PROCS NAME OR COMMAND"),
    ],
)
def test_top_fits_the_terminal(columns: int, header: str) -> None:
    """No line is wrapped, and none is below the screen: what matters least is cut, then left out."""
    jobs = [started(accepted_job(spec=JobSpec(argv=("echo", "x" * 500)))) for _ in range(30)]
    lines = table([(job, FULL) for job in jobs], {}, "cpu", os.terminal_size((columns, 24)))
    assert " ".join(lines[0].split()) == header
    assert len(lines) == 23
    assert all(len(line) == columns for line in lines[1:])
    assert [line[:8] for line in lines[1:]] == [job.id[:8] for job in jobs[:22]]


def test_top_cuts_nothing_where_no_terminal_is() -> None:
    """Another program gets all."""
    job = started(accepted_job(spec=JobSpec(argv=("echo", "x" * 500))))
    _header, row = table([(job, FULL)], {}, "cpu", None)
    assert (row.split()[0], row.split()[-1]) == (job.id, "x" * 500)
