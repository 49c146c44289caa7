"""The daemon's side of a supervisor's control socket."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from itertools import count

from jobworker.core.errors import CommandNotStartedError, LimitNotEnforceableError
from jobworker.core.job import StopRequest
from jobworker.core.limits import Limits
from jobworker.core.records import Record, limits_record, stop_from, stop_record, time_from
from jobworker.linux.limits import Write, limit_of
from jobworker.runtime import protocol
from jobworker.runtime.protocol import Message

_ENDED: Message = {"ok": False}
_numbers = count()  # of requests: none is used twice on a connection, whoever's it is by then


class Supervision:
    """A connection to the supervisor of one job.

    `started` is done when the program has been executed (its time), when it could not be (`CommandNotStartedError`,
    `LimitNotEnforceableError`), or when the supervisor has gone before either (`ConnectionError`). `over` is done when
    the supervisor has recorded the end, of which it gives the record, or has gone (`None`). After the end, the
    connection is the one's who takes it back.
    """

    def __init__(
        self, connection: socket.socket, take_back: Callable[[socket.socket], None] = socket.socket.close
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._connection = connection
        self._take_back = take_back
        self._replies: dict[int, asyncio.Future[Message]] = {}
        self.started: asyncio.Future[datetime] = self._loop.create_future()
        self.over: asyncio.Future[Record | None] = self._loop.create_future()
        self.stop: StopRequest | None = None
        self.paused = False
        self.unkillable_pids: tuple[int, ...] = ()
        self._loop.add_reader(connection, self._receive)

    def start(self, job: Record, line: bytes) -> None:
        """Have a supervisor that stands by run the job of a record (see `protocol`); `started` tells what comes of it.

        Raises `OSError`.
        """
        file = os.memfd_create("record")  # a message has not the room for it
        try:
            os.write(file, line)
            with suppress(OSError):  # it has gone, as `started` says
                socket.send_fds(self._connection, [protocol.encode({"op": "start", "job": job})], [file])
        finally:
            os.close(file)

    def let_go(self) -> None:
        """Tell a supervisor that stands by that it is not needed."""
        with suppress(OSError):  # it has gone
            self._connection.shutdown(socket.SHUT_WR)

    async def request_stop(self, stop: StopRequest) -> bool:
        """Ask for a stop; `False` if the job has ended."""
        return await self._ask({"op": "stop", "stop": stop_record(stop)})

    async def send_signal(self, number: int) -> bool:
        """Ask for a signal to the process group; `False` if the job has ended."""
        return await self._ask({"op": "signal", "signal": number})

    async def set_paused(self, *, paused: bool) -> bool:
        """Ask for a pause or for its end; `False` if the job has ended. Raises `OSError` as `set_limits` does."""
        return await self._ask({"op": "pause" if paused else "resume"})

    async def set_limits(self, limits: Limits, writes: list[Write]) -> bool:
        """Ask for writes that put limits in force, all or none; `False` if the job has ended.

        Raises `OSError` with the name of the file that the kernel does not take.
        """
        return await self._ask({"op": "limits", "writes": writes, "limits": limits_record(limits)})

    def close(self) -> None:
        """Leave the supervisor alone; closing twice is no error."""
        if self._connection.fileno() < 0:
            return
        self._loop.remove_reader(self._connection)
        self._connection.close()
        if not self.started.done():
            self.started.set_exception(ConnectionError("the supervisor has gone"))
            self.started.exception()  # nobody has to ask for it
        self._end(None)
        for reply in self._replies.values():
            if not reply.done():
                reply.set_result(_ENDED)

    async def _ask(self, request: Message) -> bool:
        if self.over.done():
            return False
        number = next(_numbers)
        reply = self._replies[number] = self._loop.create_future()
        try:
            await self._loop.sock_sendall(self._connection, protocol.encode({**request, "n": number}))
            answer = await reply
        except ConnectionError:
            return False
        finally:
            del self._replies[number]
        if refused := answer.get("refused"):
            raise OSError(refused["errno"], os.strerror(refused["errno"]), refused["file"])
        if answer.get("unknown"):
            raise OSError(errno.ENOSYS, "the supervisor is of a release that cannot do it")
        return answer["ok"]

    def _receive(self) -> None:
        while self._connection.fileno() >= 0:  # all: who waits for one event is to know of those that came with it
            try:
                packet = self._connection.recv(protocol.MAX_MESSAGE_BYTES)
            except BlockingIOError:
                return
            except OSError:
                packet = b""
            if not packet:
                self.close()
                return
            self._handle(protocol.decode(packet))

    def _handle(self, message: Message) -> None:
        match message:
            case {"reply": number, "ok": _}:
                if (reply := self._replies.get(number)) and not reply.done():
                    reply.set_result(message)
            case {"event": "started" | "failed"}:
                if not self.started.done():
                    self._handle_start(message)
            case {"event": "stopping", "stop": stop}:
                self.stop = stop_from(stop)
            case {"event": "paused", "paused": paused}:
                self.paused = paused
            case {"event": "unkillable", "pids": pids}:
                self.unkillable_pids = tuple(pids)
            case {"event": "ended"}:
                self._end(message)
                self._leave()
            case _:  # of a newer release's supervisor: what it adds must not break what we know
                pass

    def _end(self, record: Record | None) -> None:
        if not self.over.done():
            self.over.set_result(record)

    def _leave(self) -> None:
        """Give the connection back, unless an answer is still to come on it."""
        if self._replies:
            self.close()
        else:
            self._loop.remove_reader(self._connection)
            self._take_back(socket.socket(fileno=self._connection.detach()))

    def _handle_start(self, message: Message) -> None:
        if message["event"] == "started":
            self.started.set_result(time_from(message["time"]))
        else:
            self.started.set_exception(_failure(message["errno"], message["stage"], message["subject"]))
            self.started.exception()  # nobody has to ask for it


def refusal(file: str, number: int) -> LimitNotEnforceableError:
    """What it means that the kernel has refused to write a file of a cgroup."""
    if number == errno.ENOMEM:
        return LimitNotEnforceableError(limit_of(file), f"it is too little to start a program with ({file})")
    return LimitNotEnforceableError(limit_of(file), f"the kernel refuses it: {os.strerror(number)} ({file})")


def _failure(number: int, stage: str, subject: str) -> CommandNotStartedError | LimitNotEnforceableError:
    if stage == "limit":
        return refusal(subject, number)
    return CommandNotStartedError(errno=number, stage=stage, subject=subject)
