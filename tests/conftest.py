"""What holds for all tests."""

from __future__ import annotations

import signal
from collections.abc import Generator

import pytest


@pytest.fixture(scope="session", autouse=True)
def heeded_interrupts() -> Generator[None]:
    """Programs heed Ctrl-C, as in a terminal, even if the tests run in the background of a script, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
