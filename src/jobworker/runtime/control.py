"""The supervisor's side of its control socket."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Callable

from jobworker.runtime import protocol
from jobworker.runtime.protocol import Message


class Control:
    """The connections of daemons to one supervisor. Nothing here waits: a daemon that does not read is dropped.

    `first` is a connection that has been accepted before.
    """

    def __init__(
        self,
        listener: socket.socket,
        poller: select.poll,
        first: socket.socket | None = None,
    ) -> None:
        self._listener = listener
        self._poller = poller
        self._first = first
        self._connections: dict[int, socket.socket] = {}
        self._history: dict[str, Message] = {}  # the last message of each event: what a newcomer has to know
        listener.setblocking(False)
        poller.register(listener, select.POLLIN)
        if first is not None:
            self._add(first)

    def handle(self, fd: int, answer: Callable[[Message], Message]) -> None:
        """Serve a descriptor that polled ready; one that has been dropped since is no error."""
        if fd == self._listener.fileno():
            self._accept()
        elif fd in self._connections:
            self._receive(self._connections[fd], answer)

    def tell(self, event: str, **details: object) -> None:
        """Tell an event to every daemon that is connected, and to each one that will connect."""
        while self._accept():  # whoever is waiting must not miss it if this process exits next
            pass
        message = {"event": event, **details}
        self._history[event] = message
        for connection in list(self._connections.values()):
            self._send(connection, message)

    def close(self) -> bool:
        """Close all but the first connection; whether that is open still."""
        self._listener.close()
        for connection in self._connections.values():
            if connection is not self._first:
                connection.close()
        return self._first is not None and self._first.fileno() >= 0

    def _accept(self) -> bool:
        try:
            connection, _ = self._listener.accept()
        except OSError:  # nobody is waiting, or the machine is out of descriptors: no job must be lost for it
            return False
        if protocol.peer_uid(connection) not in (0, os.geteuid()):
            connection.close()
            return True
        self._add(connection)
        for message in reversed(self._history.values()):  # who has heard of the start knows of what has come since
            self._send(connection, message)
        return True

    def _add(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._connections[connection.fileno()] = connection
        self._poller.register(connection, select.POLLIN)

    def _receive(self, connection: socket.socket, answer: Callable[[Message], Message]) -> None:
        try:
            packet = connection.recv(protocol.MAX_MESSAGE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            packet = b""
        if not packet:
            self._drop(connection)
            return
        request: Message = {}
        try:
            request = protocol.decode(packet)
            reply: Message = {"reply": request["n"], **answer(request)}
        except Exception:  # noqa: BLE001 - whatever is wrong with a request: a job must not be lost for it
            # Of a newer release's daemon, most likely. The connection stays, since that asks for other things, too.
            reply = {"reply": request.get("n"), "ok": False, "unknown": True}
        self._send(connection, reply)

    def _send(self, connection: socket.socket, message: Message) -> None:
        if connection.fileno() not in self._connections:  # dropped by an earlier message
            return
        if not protocol.tell(connection, message):  # it has gone, or its buffer is full since it does not read
            self._drop(connection)

    def _drop(self, connection: socket.socket) -> None:
        self._poller.unregister(connection)
        del self._connections[connection.fileno()]
        connection.close()
