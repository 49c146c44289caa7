"""What a command does not use is not loaded: that is what makes --help quick."""

from __future__ import annotations

import subprocess
import sys

import pytest

from jobworker.cli.main import SECTIONS

HEAVY = {
    "asyncio",
    "cryptography",
    "google.protobuf",
    "grpc",
    "importlib.metadata",
    "logging",
    "sqlite3",
    "ssl",
    "tomllib",
}
COMMANDS = [name for section in SECTIONS.values() for name in section]
LIGHT_COMMANDS = [name for name in COMMANDS if name not in ("serve", "doctor", "pki")]

SCRIPT = """
import sys
from jobworker.cli.main import main
code = main({arguments!r})
sys.stderr.write(" ".join(sys.modules))
sys.exit(code)
"""


def modules_after(*arguments: str) -> set[str]:
    """The modules that a clean interpreter has loaded after running the program with these arguments."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(arguments=list(arguments))],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stderr.split())


def test_help_loads_no_command() -> None:
    """--help loads nothing heavy, and no module of any command."""
    loaded = modules_after("--help")
    assert not loaded & HEAVY
    assert not loaded & {
        f"jobworker.cli.{name}" for name in ("run", "start", "look", "watch", "control", "serve", "doctor", "pki")
    }


@pytest.mark.parametrize("command", LIGHT_COMMANDS)
def test_help_of_a_command(command: str) -> None:
    """The help of a client command loads nothing heavy either."""
    assert not modules_after(command, "--help") & HEAVY


@pytest.mark.parametrize("command", ["serve", "pki"])
def test_help_of_the_other_commands(command: str) -> None:
    """Not even the help of the server and of the authority loads gRPC or the cryptography library."""
    assert not modules_after(command, "--help") & {"grpc", "cryptography", "google.protobuf", "sqlite3"}
