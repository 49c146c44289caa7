"""How many jobs are followed at a time is bounded, and what they write at the same time is written together."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext

import pytest

from jobworker.cli.exits import CliError
from jobworker.cli.stream_many import MAX_FOLLOWED, check_number
from jobworker.cli.stream_many import _Batches as Batches  # pyright: ignore[reportPrivateUsage]


@pytest.mark.parametrize("beyond", [0, 1])
def test_more_than_can_be_followed(beyond: int) -> None:
    """More are refused, with the bound and what to do."""
    text = rf"^{MAX_FOLLOWED + 1} of these jobs run, and at most {MAX_FOLLOWED} .* max_followers_per_user .*no-follow$"
    with pytest.raises(CliError, match=text) if beyond else nullcontext():
        check_number(MAX_FOLLOWED + beyond)


async def test_what_comes_while_a_write_is_under_way() -> None:
    """It is written next and all together, and who writes waits for that."""
    written: list[bytes] = []
    goes_on = asyncio.Semaphore(0)

    async def write(data: bytes) -> None:
        await goes_on.acquire()
        written.append(data)

    batches = Batches(write)
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        tasks = [group.create_task(batches.write(data)) for data in (b"a\n", b"b\n", b"", b"c\n")]
        await asyncio.sleep(0)  # one turn of the loop, so that all have begun
        for done in ([0], [0, 1, 2, 3]):
            goes_on.release()
            await tasks[done[-1]]
            assert [number for number, task in enumerate(tasks) if task.done()] == done
    assert written == [b"a\n", b"b\nc\n"]
