"""The audit log waits for a slow reader, and nobody else waits with it."""

from __future__ import annotations

import asyncio
import json
import os
import select
import socket
import sys
from collections.abc import Callable, Generator
from contextlib import suppress
from typing import TextIO

import pytest

from jobworker.server.audit import AuditLog, AuditRecord
from tests.support.jobs import NOON

RECORDS = [
    AuditRecord(time=NOON, rpc=f"/some/Call{number}", peer="here", code="OK", seconds=1) for number in range(500)
]


def _pipe() -> tuple[int, int]:
    return os.pipe()


def _socket() -> tuple[int, int]:
    reader, writer = socket.socketpair()  # as systemd gives a service
    return reader.detach(), writer.detach()


@pytest.fixture(params=[_pipe, _socket])
def full(request: pytest.FixtureRequest) -> Generator[tuple[int, TextIO]]:
    """A descriptor to read from, and a file that takes no more until that is done."""
    make: Callable[[], tuple[int, int]] = request.param
    reader, writer = make()
    os.set_blocking(writer, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writer, b" " * 4095 + b"\n")
    os.set_blocking(writer, True)
    with os.fdopen(writer, "w", buffering=1) as file:
        yield reader, file
        os.close(reader)


async def test_a_reader_that_does_not_read(full: tuple[int, TextIO], monkeypatch: pytest.MonkeyPatch) -> None:
    """Writes wait for it, the event loop does not; every line is written, in order, even of one that was given up."""
    reader, file = full
    monkeypatch.setattr(sys, "stderr", file)
    log = AuditLog.to("stderr")
    writes = [asyncio.ensure_future(log.write(record)) for record in RECORDS]
    beginning = asyncio.ensure_future(log.caught_up())
    for _ in range(3):
        await asyncio.sleep(0)  # which ends, since nothing holds up the loop
    assert not any(write.done() for write in writes)
    writes[0].cancel()

    content = b""
    while not content.endswith(f"{RECORDS[-1].line()}\n".encode()):
        ready, _, _ = select.select([reader], [], [], 0)
        if ready:
            content += os.read(reader, 65_536)
        await asyncio.sleep(0)  # one turn of the loop, in which the writes go on
    assert await asyncio.gather(*writes[1:], beginning) == [None] * len(writes)
    lines = [json.loads(line)["rpc"] for line in content.splitlines() if line.strip()]
    assert lines == [record.rpc for record in RECORDS]
