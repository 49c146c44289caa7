"""Whoever follows a job, from wherever and however often, gets the bytes that it wrote, and all of them."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path
from random import Random

import pytest

from jobworker.core.state import Cause
from tests.support.crowd import Crowd, Follower, Received, Visit
from tests.support.machine import Machine, Script
from tests.support.polling import until
from tests.support.server import Server
from tests.support.workers import open_files

pytestmark = pytest.mark.system

SEED = int(os.environ.get("TEST_SEED", "4"))  # of the output, its bursts, the followers and the moments of the kills
FOLLOWERS = 1000
PROCESSES = 4
VISITS = 4  # of a follower, at most
PHASES = 4
PHASE = 96 * 1024  # bytes that the job writes in each; they bound what the test costs
BURST = 32 * 1024  # bytes at most
FLAGS = ("--max-followers-per-user", str(2 * FOLLOWERS))  # one that comes back may be there before it is seen to leave

# Copies as many bytes of a file as each line of its script says.
BURSTS = 'exec 3<"$1"; while read -r size; do head -c "$size" <&3; done <"$0"'


@pytest.mark.parametrize("kills", [False, True], ids=["one server", "killed servers"])
async def test_a_crowd_gets_every_byte(machine: Machine, script: Script, *, kills: bool) -> None:
    """1,000 that come, leave and come back anywhere have what belongs there, also across kill -9, and leave nothing."""
    random = Random(SEED)  # noqa: S311 - it has to be repeatable
    output = random.randbytes(PHASES * PHASE)
    file = script.path.with_name("output")
    file.write_bytes(output)
    file.chmod(0o644)
    followers = [some_follower(random, len(output)) for _ in range(FOLLOWERS)]
    marks = [random.randint(phase * PHASE + 1, (phase + 1) * PHASE) for phase in range(PHASES)]
    enough = sum(follower.stays for follower in followers) // 2

    with ExitStack() as servers:
        server = servers.enter_context(machine.server(*FLAGS))
        async with machine.client() as client, asyncio.TaskGroup() as group:
            job = await client.start(["sh", "-c", BURSTS, str(script.path), str(file)])
            crowd = Crowd([machine.client_arguments()] * PROCESSES, job.id, followers)
            following = group.create_task(crowd.follow(marks))
            await crowd.ready()
            for phase in range(PHASES):
                if kills and phase:
                    server.end(signal.SIGKILL)
                for size in some_bursts(random):
                    script.write(str(size))
                if kills and phase:
                    server = servers.enter_context(machine.server(*FLAGS))
                await crowd.passed(phase, enough)
            script.end()
            received = await following
            end = (await client.wait(job.id)).end
        assert end is not None
        assert (end.cause, end.exit_code, end.output_bytes) == (Cause.EXITED, 0, len(output))
        for number, follower in enumerate(followers):
            assert not faults(follower, received[number], output), f"follower {number} of seed {SEED}"
        await until(lambda: not left_with(server, job.id))


def some_follower(random: Random, total: int) -> Follower:
    """Any: each of its streams goes further than the one before, and begins where that was left or somewhere before."""
    leaves = sorted(random.randint(1, total) for _ in range(random.randint(1, VISITS)))
    starts = [0, *leaves]
    visits = [
        Visit(start=random.choice([None, random.randint(0, start)]), leave=leave)
        for start, leave in zip(starts, random.choice([leaves, [*leaves[:-1], None]]), strict=False)
    ]
    return Follower(
        visits=visits, slow=random.random() < 0.1, restless=random.random() < 0.1, careless=random.random() < 0.5
    )


def some_bursts(random: Random) -> list[int]:
    """The sizes of what the job writes in a phase, small ones as likely as large ones."""
    sizes: list[int] = []
    while (left := PHASE - sum(sizes)) > 0:
        sizes.append(min(left, int(BURST ** random.random())))
    return sizes


def faults(follower: Follower, received: Sequence[Received], output: bytes) -> list[str]:
    """What is wrong with what a follower has got."""
    found: list[str] = []
    for visit, got in zip(follower.visits, received, strict=True):
        end = got.start + got.length
        if got.sha256 != sha256(output[got.start : end]).hexdigest():
            found.append(f"{visit} has got other bytes: {got}")
        if visit.leave is None and not end == got.total == len(output):
            found.append(f"{visit} has not got the end: {got}")
        if visit.leave is not None and end < visit.leave:
            found.append(f"{visit} has ended too early: {got}")
    return found


def left_with(server: Server, job_id: str) -> list[str]:
    """What followers of a job take of a server: open files, watches and connections."""
    proc = Path(f"/proc/{server.process.pid}")
    files = [path for path in open_files(server.process.pid) if job_id in path]
    watches = [line for info in (proc / "fdinfo").iterdir() for line in lines_of(info) if line.startswith("inotify ")]
    sockets = [line.split() for line in lines_of(proc / "net/tcp")]
    connections = [
        remote for _, local, remote, state, *_ in sockets if (local, state) == (f"0100007F:{server.port:04X}", "01")
    ]
    return [*files, *watches, *connections]


def lines_of(path: Path) -> list[str]:
    """The lines of a file below /proc."""
    try:
        return path.read_text().splitlines()
    except OSError:  # closed meanwhile
        return []
