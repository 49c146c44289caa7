"""Waiting for what nobody tells of."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tests.support.workers import LIMIT

INTERVAL = 0.002  # seconds between two looks


async def until(condition: Callable[[], object]) -> None:
    """Wait until something holds that only a look can tell, as that another process has closed a file."""
    async with asyncio.timeout(LIMIT):
        while not condition():  # noqa: ASYNC110 -- there is no event, or this would wait for it
            await asyncio.sleep(INTERVAL)
