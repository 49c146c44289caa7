"""One server for the tests of a module."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from tests.support.server import Server, running_server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Generator[Server]:
    """A server that the tests of a module share."""
    with running_server(tmp_path_factory.mktemp("server"), "--audit-log", "off") as running:
        yield running
