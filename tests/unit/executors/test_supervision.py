"""What the daemon makes of what a supervisor says."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Generator

import pytest

from jobworker.core.errors import CommandNotStartedError, LimitNotEnforceableError
from jobworker.core.limits import Limits
from jobworker.executors.supervision import Supervision
from jobworker.runtime import protocol
from jobworker.runtime.protocol import Message


class Peer:
    """A supervisor that says what a test has it say."""

    def __init__(self) -> None:
        ours, self._socket = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        self.supervision = Supervision(ours)

    def tell(self, message: Message) -> None:
        """Send a message."""
        self._socket.send(protocol.encode(message))

    async def answer(self, answer: Message) -> Message:
        """Wait for a request and answer it."""
        request = protocol.decode(await asyncio.to_thread(self._socket.recv, protocol.MAX_MESSAGE_BYTES))
        self.tell({"reply": request["n"], **answer})
        return request

    def close(self) -> None:
        """Hang up on both sides."""
        self.supervision.close()
        self._socket.close()


@pytest.fixture
def peer() -> Generator[list[Peer]]:
    """Peers to be closed in the end."""
    peers: list[Peer] = []
    yield peers
    for each in peers:
        each.close()


async def test_a_limit_that_the_kernel_refuses_is_named(peer: list[Peer]) -> None:
    """At the start it is an error of its own, and no other failure is."""
    for stage, error in (("limit", LimitNotEnforceableError), ("exec", CommandNotStartedError)):
        peer.append(Peer())
        peer[-1].tell({"event": "failed", "errno": errno.ENOENT, "stage": stage, "subject": "memory.swap.max"})
        with pytest.raises(error) as caught:
            await peer[-1].supervision.started
        if isinstance(caught.value, LimitNotEnforceableError):
            assert caught.value.limit == "swap"
            assert "No such file or directory (memory.swap.max)" in caught.value.problem


async def test_a_change_that_the_kernel_refuses_raises_its_error(peer: list[Peer]) -> None:
    """With the file; a supervisor that does not know the request cannot do it either; one of an ended job says so."""
    peer.append(Peer())
    supervision, limits = peer[0].supervision, Limits(memory=4096, swap=0)
    answers: list[tuple[Message, int]] = [
        ({"ok": False, "refused": {"errno": errno.EINVAL, "file": "memory.max"}}, errno.EINVAL),
        ({"ok": False, "unknown": True}, errno.ENOSYS),
    ]
    for answer, number in answers:
        change = asyncio.ensure_future(supervision.set_limits(limits, [("memory.max", "4096")]))
        request = await peer[0].answer(answer)
        assert request["limits"] == {"memory": 4096, "swap": 0}
        assert request["writes"] == [["memory.max", "4096"]]
        with pytest.raises(OSError, match=r"\[Errno") as caught:
            await change
        assert caught.value.errno == number
    for answer in ({"ok": True}, {"ok": False}):
        change = asyncio.ensure_future(supervision.set_limits(limits, []))
        await peer[0].answer(answer)
        assert await change == answer["ok"]


async def test_a_pause_is_known_from_what_the_supervisor_tells(peer: list[Peer]) -> None:
    """Whoever has asked for it, and before the start is known, so also to a new daemon."""
    peer.append(Peer())
    supervision = peer[0].supervision
    assert not supervision.paused
    peer[0].tell({"event": "paused", "paused": True})
    peer[0].tell({"event": "started", "time": "2026-01-01T00:00:00+00:00"})
    await supervision.started
    assert supervision.paused
    resume = asyncio.ensure_future(supervision.set_paused(paused=False))
    assert (await peer[0].answer({"ok": True}))["op"] == "resume"
    assert await resume
