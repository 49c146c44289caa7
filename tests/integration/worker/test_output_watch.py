"""Followers of a worker that looks for new output itself."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from jobworker.core.output import OutputMode, Selection
from jobworker.core.spec import JobSpec
from jobworker.worker import Chunk, local_worker
from tests.support.workers import LIMIT, Gate, output_of, said, shell

BURSTS = """
import os, random, sys, time
dice = random.Random(7)
for number in range(40):
    os.write(1 + number % 2, dice.randbytes(dice.randrange(1, 50_000)))
    time.sleep(dice.random() / 50)  # it waits for nothing: the pauses make the bursts
"""


@pytest.mark.timeout(60)
@pytest.mark.parametrize("mode", list(OutputMode))
async def test_followers_have_every_byte_where_output_is_looked_for(state_dir: Path, mode: OutputMode) -> None:
    """Whatever they ask for and whenever they come; each ends with the job."""
    dice, written = random.Random(7), b""  # noqa: S311 - as in the program
    for _ in range(40):
        written += dice.randbytes(dice.randrange(1, 50_000))
        dice.random()
    async with asyncio.timeout(LIMIT), local_worker(state_dir, output_watch="poll") as worker:
        job = await worker.start(JobSpec(argv=("python3", "-c", BURSTS), output=mode), "ada")

        async def follow(number: int) -> tuple[int, bytes]:
            offset = 0
            if number >= 3:
                await said(worker, job, written[: number * 10_000][-8:])
                offset = number * 10_000
            found, position = b"", offset
            async for piece in worker.stream(job.id, Selection(offset=offset, times=number % 2 == 1)):
                assert isinstance(piece, Chunk)
                assert piece.offset == position
                found, position = found + piece.data, piece.end
            return offset, found

        results = await asyncio.gather(*(follow(number) for number in range(12)))
        assert len((await worker.wait(job.id)).spec.argv) == 3
    if mode is OutputMode.COMBINED:
        assert all(data == written[offset:] for offset, data in results)
    else:
        whole = results[0][1]
        assert len(whole) == len(written)
        assert all(data == whole[offset:] for offset, data in results)


async def test_a_follower_is_told_of_the_end_although_nothing_comes(state_dir: Path, gate: Gate) -> None:
    """At once: nobody has to look for it."""
    async with local_worker(state_dir, output_watch="poll") as worker:
        job = await worker.start(shell(f"echo ready; read x < {gate.path}"), "ada")
        following = asyncio.ensure_future(output_of(worker, job))
        await said(worker, job)
        gate.open()
        ended = await worker.wait(job.id)
        assert await following == b"ready\n"
        assert ended.output_bytes == 6
