"""A machine for the tests of a module, and a script for a job."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.support.machine import Machine, Script


@pytest.fixture
def machine(tmp_path: Path) -> Generator[Machine]:
    """A machine whose jobs are gone after the test, whatever the test did to its servers."""
    with Machine(tmp_path) as machine:
        yield machine


@pytest.fixture
def script() -> Generator[Script]:
    """A script for one job."""
    # Not below tmp_path, which only its owner may enter: jobs of root's server run as nobody.
    with TemporaryDirectory(prefix="jobworker-test-") as folder:
        Path(folder).chmod(0o711)
        yield Script(Path(folder))
