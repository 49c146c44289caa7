"""Many who follow one job, in processes of their own; each does as it is told and says what it has got.

A process is `python -m tests.support.crowd`. On standard input it is told what to do, as JSON. On standard output it
says `READY` when all its connections are made, "passed M" for each follower that has come as far as mark M, and in the
end what every stream brought, as JSON.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
from asyncio.subprocess import PIPE, Process
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from typing import Any

from jobworker.client import AsyncClient, OutputStream
from jobworker.core.output import Chunk
from tests.support.machine import ClientArguments
from tests.support.workers import PROJECT

READY = "ready"
CONNECTIONS = 3  # of a process
PAUSE = 0.02  # seconds that a slow follower takes over a chunk
IMPATIENCE = 0.001  # seconds after which a restless follower first gives up a step
LINE_LIMIT = 2**24  # bytes of what a process says in the end


@dataclass(frozen=True, kw_only=True)
class Visit:
    """One stream: from an offset, or where the one before was left, until another is passed, or to the job's end."""

    start: int | None
    leave: int | None


@dataclass(frozen=True, kw_only=True)
class Follower:
    """One who comes, leaves and comes back.

    A slow one reads more slowly than the server sends. A restless one cancels the steps of its streams in their midst,
    each time later. A careless one forgets streams instead of closing them.
    """

    visits: Sequence[Visit]
    slow: bool
    restless: bool
    careless: bool

    @property
    def stays(self) -> bool:
        """Whether it follows to the end in the end."""
        return self.visits[-1].leave is None


@dataclass(frozen=True, kw_only=True)
class Received:
    """What a stream brought: how many bytes from where, their SHA-256, and how much output there was at its end."""

    start: int
    length: int
    sha256: str
    total: int | None


class Crowd:
    """Followers of a job, spread over some processes: one for each of `clients`."""

    def __init__(self, clients: Sequence[ClientArguments], job_id: str, followers: Sequence[Follower]) -> None:
        self._clients = clients
        self._job_id = job_id
        self._followers = followers
        self._said = Counter[str]()
        self._heard = asyncio.Condition()

    async def follow(self, marks: Sequence[int]) -> list[list[Received]]:
        """What the streams of each follower brought. `marks` are offsets to wait for."""
        count = len(self._clients)
        async with asyncio.TaskGroup() as group:
            shares = [
                group.create_task(self._share(client, self._followers[number::count], marks))
                for number, client in enumerate(self._clients)
            ]
        received: list[list[Received]] = [[] for _ in self._followers]
        for number, share in enumerate(shares):
            received[number::count] = share.result()
        return received

    async def ready(self) -> None:
        """Wait until all connections are made."""
        await self._hear(READY, len(self._clients))

    async def passed(self, mark: int, count: int) -> None:
        """Wait until so many followers have passed a mark, given by its number."""
        await self._hear(f"passed {mark}", count)

    async def _hear(self, line: str, times: int) -> None:
        async with self._heard:
            await self._heard.wait_for(lambda: self._said[line] >= times)

    async def _share(
        self, client: ClientArguments, followers: Sequence[Follower], marks: Sequence[int]
    ) -> list[list[Received]]:
        told = {"client": client, "job": self._job_id, "marks": marks, "followers": [asdict(one) for one in followers]}
        command = [sys.executable, "-m", "tests.support.crowd"]
        process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, limit=LINE_LIMIT, cwd=PROJECT)
        try:
            return await self._listen(process, json.dumps(told))
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    async def _listen(self, process: Process, told: str) -> list[list[Received]]:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(told.encode())
        process.stdin.close()
        line = ""
        while said := await process.stdout.readline():
            line = said.decode().rstrip("\n")
            async with self._heard:
                self._said[line] += 1
                self._heard.notify_all()
        assert await process.wait() == 0, "a process of followers has failed; what it said stands above"
        return [[Received(**one) for one in follower] for follower in json.loads(line)]


async def follow(told: dict[str, Any]) -> list[list[Received]]:
    """What the followers of this process have got."""
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(AsyncClient(**told["client"])) for _ in range(CONNECTIONS)]
        for client in clients:
            await client.get(told["job"])
        print(READY, flush=True)  # noqa: T201 -- the process that started it listens
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(_follow(clients[number % CONNECTIONS], told["job"], told["marks"], _follower(one)))
                for number, one in enumerate(told["followers"])
            ]
        return [task.result() for task in tasks]


def _follower(told: dict[str, Any]) -> Follower:
    visits = [Visit(**one) for one in told.pop("visits")]
    return Follower(visits=visits, **told)


async def _follow(client: AsyncClient, job_id: str, marks: Sequence[int], follower: Follower) -> list[Received]:
    received: list[Received] = []
    ahead = list(enumerate(marks))
    position = 0
    for visit in follower.visits:
        start = position if visit.start is None else visit.start
        stream = client.stream(job_id, offset=start)
        digest, length = hashlib.sha256(), 0
        async for chunk in _chunks(stream, restless=follower.restless):
            digest.update(chunk.data)
            length += len(chunk.data)
            while ahead and stream.offset >= ahead[0][1]:
                print(f"passed {ahead.pop(0)[0]}", flush=True)  # noqa: T201 -- as above
            if visit.leave is not None and stream.offset >= visit.leave:
                break
            if follower.slow:
                await asyncio.sleep(PAUSE)  # it waits for nothing: to be slow is what it is there for
        total = None if stream.job is None else stream.job.output_bytes
        position = stream.offset
        received.append(Received(start=start, length=length, sha256=digest.hexdigest(), total=total))
        if not follower.careless:
            await stream.aclose()
    return received


async def _chunks(stream: OutputStream, *, restless: bool) -> AsyncGenerator[Chunk]:
    patience = IMPATIENCE if restless else None
    while True:
        try:
            async with asyncio.timeout(patience):
                chunk = await anext(stream)
        except TimeoutError:
            assert patience is not None
            patience *= 2
        except StopAsyncIteration:
            return
        else:
            yield chunk


if __name__ == "__main__":
    got = asyncio.run(follow(json.load(sys.stdin)))
    print(json.dumps([[asdict(one) for one in follower] for follower in got]), flush=True)  # noqa: T201 -- as above
