"""Which words of `start` are its own and which are the command's, in the newer and the older form."""

from __future__ import annotations

import click
import pytest

from jobworker.cli.run import run
from jobworker.cli.start import start


@pytest.mark.parametrize(
    "words, older, command",
    [
        (["ls", "-l", "--name", "x"], None, ["ls", "-l", "--name", "x"]),
        (["--", "ls", "-l"], None, ["ls", "-l"]),
        (["--", "ls", "--", "-args"], None, ["ls", "--", "-args"]),
        (["sh", "-c", "-args"], None, ["sh", "-c", "-args"]),
        (["-c", "ls"], "ls", []),
        (["-c", "ls", "-args", "-l", "/srv"], "ls", ["-l", "/srv"]),
        (["-c", "ls", "-args"], "ls", []),
        (["-c", "x", "-args", "-c", "--", "-args", "--name"], "x", ["-c", "--", "-args", "--name"]),
        (["-c", "-args", "-args", "a"], "-args", ["a"]),
        (["--name", "-args", "-c", "x", "-args", "a"], "x", ["a"]),
        (["--cwd=/srv", "-c", "x", "-args", "a"], "x", ["a"]),
    ],
)
def test_start(words: list[str], older: str | None, command: list[str]) -> None:
    """Everything after the command's name, after -- or after -args is the command's, whatever it looks like."""
    params = start.make_context("start", list(words)).params
    assert (params["older_command"], list(params["command"])) == (older, command)


def test_run_has_no_older_form() -> None:
    """`run` is new, so -c is no option of its own."""
    with pytest.raises(click.NoSuchOption):
        run.make_context("run", ["-c", "ls"])
