"""The tests that need every cgroup v2 controller, on the kernel of a VM."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.kernel import missing_controllers
from tests.support.workers import PROJECT
from tests.system.vm import run as vm

pytestmark = pytest.mark.system

TIME_LIMIT = 800  # seconds; each takes some minutes
HERE = Path(__file__).parent
PYTEST = (sys.executable, "-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider", "-o", "timeout=180", "--color=no")


@pytest.mark.timeout(TIME_LIMIT + 60)
@pytest.mark.parametrize("folder", ["kernel", "systemd"])
def test_in_a_vm(folder: str) -> None:
    """All tests of the folder pass there, and none skips."""
    if folder == "kernel" and missing_controllers() is None:
        pytest.skip("this machine's own kernel has the controllers, so the tests run here")
    result = in_vm([*PYTEST, str(HERE / folder)], *(["--systemd"] if folder == "systemd" else []))
    assert result.returncode == 0, said(result)
    assert re.search(r"^\d+ passed in", result.stdout, re.MULTILINE), f"not all have passed{said(result)}"


@pytest.mark.timeout(2 * TIME_LIMIT + 60)
def test_a_reboot_loses_jobs_and_no_more(tmp_path: Path) -> None:
    """After a power cut the jobs are LOST with their output, and processes that got their pids are left alone."""
    state = tmp_path / "state"
    reboot = [sys.executable, "-m", "tests.support.reboot"]
    first = in_vm([*reboot, "before", str(state)], "--share", str(tmp_path))
    assert first.returncode == vm.FAILED, said(first)
    assert (tmp_path / "left.json").exists(), said(first)
    second = in_vm([*reboot, "after", str(state)], "--share", str(tmp_path))
    assert second.returncode == 0, said(second)
    assert "2 lost, " in second.stdout, said(second)


def in_vm(command: list[str], *options: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a VM. Where none can be had, the test skips, or fails in CI."""
    if reason := vm.why_not():
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    line = [sys.executable, vm.__file__, "--time-limit", str(TIME_LIMIT), *options, "--", *command]
    return subprocess.run(line, capture_output=True, text=True, check=False, cwd=PROJECT)


def said(result: subprocess.CompletedProcess[str]) -> str:
    """What a VM wrote."""
    return f"\n--- what the VM said\n{result.stdout}\n{result.stderr}"
