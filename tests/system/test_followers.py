"""Followers come and go; what they have taken of the server goes with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.machine import Machine, Script
from tests.support.polling import until
from tests.support.server import Server

pytestmark = pytest.mark.system


async def test_a_follower_that_breaks_its_loop_leaves_nothing(machine: Machine, script: Script) -> None:
    """A loop over a stream that is left early ends the call: the server has closed the output."""
    with machine.server() as server:
        async with machine.client() as client:
            job = await client.start(script.argv)
            script.write("x")
            for _ in range(20):
                async for _ in client.stream(job.id):
                    break
            await until(lambda: not _open_outputs(server))
            script.end()


def _open_outputs(server: Server) -> int:
    links = Path(f"/proc/{server.process.pid}/fd").iterdir()
    return sum(_target(link).endswith("/output") for link in links)


def _target(link: Path) -> str:
    try:
        return str(link.readlink())
    except OSError:  # closed meanwhile
        return ""
