"""One server for the tests of a module, and the program of one of its users."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from tests.support.program import Program, program_of
from tests.support.server import Server, running_server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Generator[Server]:
    """A server that the tests of a module share."""
    with running_server(tmp_path_factory.mktemp("server"), "--audit-log", "off") as running:
        yield running


@pytest.fixture(scope="module")
def alice(server: Server) -> Program:
    """The program of a user."""
    return program_of(server, "alice")
