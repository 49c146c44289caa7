"""The demo shows what it promises, and leaves nothing, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

DEMO = Path(__file__).parents[2] / "demo" / "demo.py"
LIMIT = 90.0  # seconds; about eight on an idle machine


def begin(folder: Path) -> subprocess.Popen[str]:
    """The demo, with this folder for whatever it makes."""
    environ = {**os.environ, "TMPDIR": str(folder)}
    return subprocess.Popen(
        [sys.executable, str(DEMO)], env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def leftovers(folder: Path) -> list[str]:
    """Files of the demo, and processes that work in its folder or hold a file of it."""
    processes = [str(process) for process in Path("/proc").glob("[0-9]*") if _uses(process, folder)]
    return [*map(str, folder.iterdir()), *processes]


def _uses(process: Path, folder: Path) -> bool:
    try:
        links = [process / "cwd", *process.joinpath("fd").iterdir()]
        return any(str(link.readlink()).startswith(str(folder)) for link in links)
    except OSError:  # it has just ended, or is somebody else's
        return False


def test_all_of_it(tmp_path: Path) -> None:
    """It runs to its end, shows the commands and what they do, and cleans up."""
    with begin(tmp_path) as demo:
        shown, complaints = demo.communicate(timeout=LIMIT)
    assert (demo.returncode, complaints) == (0, "")
    for line in ("  part 1, as ", "  (exit status 3)", "  tick 6", "  (exit status 7)", "STOPPED (stopped by alice)"):
        assert line in shown
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize(
    "moment, number",
    [
        ("2. A server", signal.SIGINT),
        ("part 1", signal.SIGTERM),
        ("kill -9 of the server, and then", signal.SIGINT),
    ],
)
def test_interrupted(tmp_path: Path, moment: str, number: signal.Signals) -> None:
    """Interrupted at any moment it cleans up all the same, and its exit status tells."""
    with begin(tmp_path) as demo:
        assert demo.stdout is not None
        for line in demo.stdout:
            if moment in line:
                break
        demo.send_signal(number)
        demo.communicate(timeout=LIMIT)
    assert demo.returncode == 130
    assert leftovers(tmp_path) == []
