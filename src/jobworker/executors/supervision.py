"""The daemon's side of a supervisor's control socket."""

from __future__ import annotations

import asyncio
import socket
from datetime import datetime
from itertools import count

from jobworker.core.errors import CommandNotStartedError
from jobworker.core.job import StopRequest
from jobworker.core.records import stop_from, stop_record, time_from
from jobworker.runtime import protocol
from jobworker.runtime.protocol import Message


class Supervision:
    """A connection to the supervisor of one job.

    `started` is done when the program has been executed (its time), when it could not be
    (`CommandNotStartedError`), or when the supervisor has gone before either (`ConnectionError`). `over` is done when
    the supervisor has recorded the end or has gone.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._loop = asyncio.get_running_loop()
        self._connection = connection
        self._numbers = count()
        self._replies: dict[int, asyncio.Future[bool]] = {}
        self.started: asyncio.Future[datetime] = self._loop.create_future()
        self.over: asyncio.Future[None] = self._loop.create_future()
        self.stop: StopRequest | None = None
        self._loop.add_reader(connection, self._receive)

    async def request_stop(self, stop: StopRequest) -> bool:
        """Ask for a stop; `False` if the job has ended."""
        return await self._ask({"op": "stop", "stop": stop_record(stop)})

    async def send_signal(self, number: int) -> bool:
        """Ask for a signal to the process group; `False` if the job has ended."""
        return await self._ask({"op": "signal", "signal": number})

    def close(self) -> None:
        """Leave the supervisor alone; closing twice is no error."""
        if self._connection.fileno() < 0:
            return
        self._loop.remove_reader(self._connection)
        self._connection.close()
        if not self.started.done():
            self.started.set_exception(ConnectionError("the supervisor has gone"))
            self.started.exception()  # nobody has to ask for it
        if not self.over.done():
            self.over.set_result(None)
        for reply in self._replies.values():
            if not reply.done():
                reply.set_result(False)

    async def _ask(self, request: Message) -> bool:
        if self.over.done():
            return False
        number = next(self._numbers)
        reply = self._replies[number] = self._loop.create_future()
        try:
            await self._loop.sock_sendall(self._connection, protocol.encode({**request, "n": number}))
            return await reply
        except ConnectionError:
            return False
        finally:
            del self._replies[number]

    def _receive(self) -> None:
        while True:  # all that there is: who waits for one event is to know of those that came with it
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
            case {"reply": number, "ok": ok}:
                if (reply := self._replies.get(number)) and not reply.done():
                    reply.set_result(ok)
            case {"event": "started", "time": time}:
                if not self.started.done():
                    self.started.set_result(time_from(time))
            case {"event": "failed", "errno": number, "stage": stage, "subject": subject}:
                if not self.started.done():
                    error = CommandNotStartedError(errno=number, stage=stage, subject=subject)
                    self.started.set_exception(error)
                    self.started.exception()  # nobody has to ask for it
            case {"event": "stopping", "stop": stop}:
                self.stop = stop_from(stop)
            case {"event": "ended"}:
                if not self.over.done():
                    self.over.set_result(None)
            case _:  # of a newer release's supervisor: what it adds must not break what we know
                pass
