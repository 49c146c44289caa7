"""Followers come and go; what they have taken of the server goes with them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.support.machine import Machine, Script
from tests.support.server import Server

pytestmark = pytest.mark.system

LIMIT = 10  # seconds until the server has noticed; it takes milliseconds


async def test_a_follower_that_breaks_its_loop_leaves_nothing(machine: Machine, script: Script) -> None:
    """A loop over a stream that is left early ends the call: the server has closed the output."""
    with machine.server() as server:
        async with machine.client() as client:
            job = await client.start(script.argv)
            script.write("x")
            for _ in range(20):
                async for _ in client.stream(job.id):
                    break
            async with asyncio.timeout(LIMIT):
                while _open_outputs(server):  # noqa: ASYNC110 - it is another process's
                    await asyncio.sleep(0)
            script.end()


def _open_outputs(server: Server) -> int:
    links = Path(f"/proc/{server.process.pid}/fd").iterdir()
    return sum(_target(link).endswith("/output") for link in links)


def _target(link: Path) -> str:
    try:
        return str(link.readlink())
    except OSError:  # closed meanwhile
        return ""
