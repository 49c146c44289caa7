"""docs/cli.md is true."""

from __future__ import annotations

import re
from pathlib import Path

from jobworker.cli import exits
from jobworker.cli.view import job_json
from tests.support.jobs import accepted_job, ended

PAGE = (Path(__file__).parents[3] / "docs" / "cli.md").read_text(encoding="utf-8")


def rows_of(section: str) -> list[str]:
    """The first cells of the rows of a section's table."""
    (text,) = re.findall(rf"^## {section}\n(.*?)^## ", PAGE, re.MULTILINE | re.DOTALL)
    table = [line for line in text.splitlines() if line.startswith("|")]
    return [row.split("|")[1].strip() for row in table[2:]]


def test_exit_codes_in_the_help() -> None:
    """The help of `run` and `wait` has the codes of the table that their jobs can give."""
    in_help = {int(code) for code in re.findall(r"^  (\d+)", exits.JOB_CODES, re.MULTILINE)}
    assert in_help == {int(row) for row in rows_of("Exit codes") if row.isdigit()} - {0, 1, 2}


def test_fields() -> None:
    """The table names exactly the fields that are printed."""
    named = [name for row in rows_of("Output") for name in re.findall(r"`(\w+)`", row)]
    assert sorted(named) == sorted(job_json(ended(accepted_job())))


def test_exit_codes() -> None:
    """The table names exactly the codes that there are."""
    named = {int(row) for row in rows_of("Exit codes") if row.isdigit()}
    codes = {value for name, value in vars(exits).items() if name.isupper() and isinstance(value, int)}
    assert named == codes | {0, 124, 153}
