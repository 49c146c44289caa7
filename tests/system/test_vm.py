"""The tests that need every cgroup v2 controller, on the kernel of a VM."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.kernel import missing_controllers
from tests.system.vm import run as vm

pytestmark = pytest.mark.system

TIME_LIMIT = 400  # seconds; each takes a minute or three
HERE = Path(__file__).parent
PYTEST = (sys.executable, "-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider", "-o", "timeout=180", "--color=no")
WARM = {"JOBWORKER_TEST_DISK": "/run/scratch", "PYTHONDONTWRITEBYTECODE": "1"}


@pytest.mark.timeout(TIME_LIMIT + 60)
@pytest.mark.parametrize("folder", ["kernel"])
def test_in_a_vm(folder: str) -> None:
    """All tests of the folder pass there, and none skips."""
    if folder == "kernel" and missing_controllers() is None:
        pytest.skip("this machine's own kernel has the controllers, so the tests run here")
    if reason := vm.why_not():
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    options: tuple[str, ...] = ("--systemd",) if folder == "systemd" else ()
    command = [
        sys.executable,
        vm.__file__,
        *options,
        "--time-limit",
        str(TIME_LIMIT),
        "--",
        *PYTEST,
        str(HERE / folder),
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **WARM})
    said = f"\n--- what the VM said\n{result.stdout}\n{result.stderr}"
    assert result.returncode == 0, said
    assert re.search(r"^\d+ passed in", result.stdout, re.MULTILINE), f"not all have passed{said}"
