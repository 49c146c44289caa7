"""One connection to a server: opening it, calling over it, mending it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

import grpc
import grpc.aio

from jobworker.api.status import error_from
from jobworker.api.v1.jobs_pb2_grpc import JobServiceStub
from jobworker.client.backoff import Backoff
from jobworker.client.credentials import Credentials
from jobworker.core.address import Address
from jobworker.core.errors import JobworkerError, ServerUnavailableError

if TYPE_CHECKING:
    from jobworker.api.v1.jobs_pb2_grpc import JobServiceAsyncStub  # exists for the type checker only

Request = TypeVar("Request")
Response = TypeVar("Response")

# What gRPC itself ends calls with when a connection breaks (RST_STREAM) or a server has too many of them. Errors of the
# server's own come with details and are never taken for these.
_GIVEN_UP = frozenset(
    {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.ABORTED}
)

KEEPALIVE = timedelta(seconds=20)  # how long a call may be silent before the server is asked whether it is there
KEEPALIVE_ANSWER = timedelta(seconds=10)  # and how long it may take to say so
SETTLED = timedelta(seconds=1)  # how long a call has to be with the server before that counts as back


@dataclass(frozen=True, kw_only=True, slots=True)
class Timeouts:
    """How long to wait.

    `connect` is for the first connection, which is tried once. `call` is for an answer to a call that answers at once.
    `reconnect` is how long a lost server may stay away before what waits for it fails; zero never reconnects.
    """

    connect: timedelta = timedelta(seconds=10)
    call: timedelta = timedelta(seconds=30)
    reconnect: timedelta = timedelta(minutes=5)


class Connection:
    """A connection to one server; opened by the first call, mended by gRPC, closed by `close`.

    While it is lost, or the server does not accept the certificate any more, credentials are read again from where they
    came, and a new channel is made where they have changed.
    """

    def __init__(
        self,
        address: Address,
        credentials: Credentials,
        timeouts: Timeouts,
        on_outage: Callable[[], None] | None = None,
        on_recovery: Callable[[], None] | None = None,
    ) -> None:
        self.address = address
        self.timeouts = timeouts
        self.credentials = credentials
        self._on_outage = on_outage or _nothing
        self._on_recovery = on_recovery or _nothing
        self._lost = False  # as far as `on_outage` was told, by whatever waits for the server
        self._channel: grpc.aio.Channel | None = None
        self._stub: JobServiceAsyncStub | None = None

    @property
    def connected(self) -> bool:
        """Whether there has been a connection; before that, no call can have reached the server."""
        return self._stub is not None

    async def stub(self) -> JobServiceAsyncStub:
        """The RPCs of the server. Raises `ServerUnavailableError` if there has never been a connection to it."""
        if self._stub is None:
            self._channel = self._channel or self._new_channel()
            await self._wait_until_ready(self._channel)
            self._stub = JobServiceStub(self._channel)
        return self._stub

    async def close(self) -> None:
        """Close it; calls that are under way end with an error."""
        channel, self._channel, self._stub = self._channel, None, None
        if channel is not None:
            await channel.close()

    def backoff(self) -> Backoff:
        """A back-off for something that is to outlive an outage."""
        return Backoff(self.timeouts.reconnect)

    async def call(
        self,
        rpc: Callable[[JobServiceAsyncStub], grpc.aio.UnaryUnaryMultiCallable[Request, Response]],
        request: Request,
        *,
        deadline: timedelta | None,
        repeat: bool = True,
    ) -> Response:
        """Call and give the answer; `deadline` is for one attempt.

        With `repeat`, a call whose answer was lost is made again, as often as the reconnect timeout allows, so it must
        be one that can be repeated. Raises the error that the server sent, or `ServerUnavailableError`.
        """
        backoff = self.backoff()
        while True:
            stub, credentials = await self.stub(), self.credentials
            call = rpc(stub)(request, timeout=None if deadline is None else deadline.total_seconds())
            noting = asyncio.create_task(self._note_contact(backoff)) if backoff.failing else None
            try:
                response = await call
            except grpc.aio.AioRpcError as status:
                if not self.may_recover(status, credentials) or not repeat:
                    raise await self.error(status) from None
                await self.pause(backoff, status)
            else:
                self.contact(backoff)
                return response
            finally:
                if noting is not None:
                    noting.cancel()

    async def pause(self, backoff: Backoff, status: grpc.aio.AioRpcError | None) -> None:
        """Wait before the next attempt.

        Raises `ServerUnavailableError` when the budget is spent, or the certificate has expired, which no time mends.
        `status` is what the last attempt ended with; `None` for a stream that was cut without one.
        """
        delay = backoff.failure()
        if delay is not None:
            if not self._renew() and backoff.long and (problem := await self._refusal()):
                raise ServerUnavailableError(problem)
            if not self._lost and backoff.grown_long():
                self._lost = True
                self._on_outage()
            await asyncio.sleep(delay.total_seconds())  # no event says that a server is back; it has to be asked
            return
        error = (
            ServerUnavailableError("the server ended the stream early") if status is None else await self.error(status)
        )
        if not backoff.budget:
            raise error
        raise ServerUnavailableError(f"no contact for {_seconds(backoff.budget)}: {error}")

    def may_recover(self, status: grpc.aio.AioRpcError, credentials: Credentials) -> bool:
        """Whether a call that was made with these credentials and ended with `status` may succeed if made again."""
        if status.code() is grpc.StatusCode.UNAUTHENTICATED:
            return self._renew() or self.credentials != credentials
        return is_outage(status)

    async def accepted(self, call: grpc.aio.Call, backoff: Backoff) -> None:
        """Wait until the server has let a stream in or ended it; a long silence after that is no part of an outage."""
        try:
            await call.initial_metadata()
        except asyncio.CancelledError:
            call.cancel()  # which gRPC does not do here by itself
            raise
        if not call.done():
            self.contact(backoff)

    def contact(self, backoff: Backoff) -> None:
        """The server was heard of by what uses this back-off."""
        backoff.contact()
        if self._lost:
            self._lost = False
            self._on_recovery()

    async def error(self, status: grpc.aio.AioRpcError) -> JobworkerError:
        """The error to raise for a call that ended with `status`."""
        error = _error_of(status)
        if status.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
            return ServerUnavailableError(
                f"{self.address} did not answer within {_seconds(self.timeouts.call)}; try again"
            )
        if type(error) is ServerUnavailableError and _made_by_grpc(status):
            return await self._unavailable()
        return error

    async def _note_contact(self, backoff: Backoff) -> None:
        """Note that the server is back once it has kept a call for a while, of which it says nothing until the answer.

        One that does not want it refuses it at once, or ends the connection.
        """
        while True:
            await asyncio.sleep(SETTLED.total_seconds())
            if self._channel is not None and self._channel.get_state() is grpc.ChannelConnectivity.READY:
                self.contact(backoff)
                return

    async def _wait_until_ready(self, channel: grpc.aio.Channel) -> None:
        try:
            async with asyncio.timeout(self.timeouts.connect.total_seconds()):
                state = channel.get_state(try_to_connect=True)
                while state is not grpc.ChannelConnectivity.READY:
                    if state is grpc.ChannelConnectivity.TRANSIENT_FAILURE:
                        raise await self._unavailable()
                    await channel.wait_for_state_change(state)
                    state = channel.get_state(try_to_connect=True)
        except TimeoutError:
            raise await self._unavailable() from None

    async def _unavailable(self) -> ServerUnavailableError:
        # Loaded when it is needed, because it loads cryptography, which costs more than a call that goes well.
        from jobworker.client.diagnosis import why_unavailable  # noqa: PLC0415

        return ServerUnavailableError(await why_unavailable(self.address, self.credentials))

    async def _refusal(self) -> str | None:
        from jobworker.client.diagnosis import why_refused  # noqa: PLC0415 -- as above

        return await why_refused(self.address, self.credentials)

    def _renew(self) -> bool:
        """Whether the credentials have changed where they came from; calls that begin from now on use the new ones."""
        renewed = self.credentials.read_again()
        if renewed == self.credentials:
            return False
        from jobworker.client.fit import misfit  # noqa: PLC0415 -- as above

        if misfit(ca=renewed.ca, cert=renewed.cert, key=renewed.key):
            return False  # one is half-written, or another has not been written yet
        self.credentials = renewed
        self._channel = self._new_channel()  # the other one goes with the last of its calls
        self._stub = JobServiceStub(self._channel)
        return True

    def _new_channel(self) -> grpc.aio.Channel:
        pems = self.credentials
        credentials = grpc.ssl_channel_credentials(pems.ca.content, pems.key.content, pems.cert.content)
        # The scheme is said, so that no host name can be taken for another scheme.
        return grpc.aio.secure_channel(f"dns:///{self.address}", credentials, options=self._options())

    def _options(self) -> list[tuple[str, int]]:
        return [
            ("grpc.keepalive_time_ms", _milliseconds(KEEPALIVE)),
            ("grpc.keepalive_timeout_ms", _milliseconds(KEEPALIVE_ANSWER)),
            # Without this one a connection into a black hole ends after a minute, whatever keepalive says.
            ("grpc.http2.ping_timeout_ms", _milliseconds(KEEPALIVE_ANSWER)),
            # Within an outage our own back-off decides when to try; gRPC's must not be the slower one.
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 1_000),
            ("grpc.min_reconnect_backoff_ms", _milliseconds(self.timeouts.connect)),
            ("grpc.max_receive_message_length", -1),  # a page of jobs with long commands; the server has proven itself
            ("grpc.enable_http_proxy", 0),  # the variables that set one are about the web
        ]


def is_outage(status: grpc.aio.AioRpcError) -> bool:
    """Whether the server may answer if it is asked again.

    It is away, or it cancelled a call that nobody cancelled, or gRPC gave the call up without having an answer.
    """
    error = type(_error_of(status))
    if error is ServerUnavailableError:
        return status.code() is not grpc.StatusCode.DEADLINE_EXCEEDED
    return error is JobworkerError and status.code() in _GIVEN_UP


def _error_of(status: grpc.aio.AioRpcError) -> JobworkerError:
    return error_from(status.code(), status.details(), tuple(status.trailing_metadata()))


def _made_by_grpc(status: grpc.aio.AioRpcError) -> bool:
    return not status.trailing_metadata()


def _nothing() -> None:
    pass


def _milliseconds(duration: timedelta) -> int:
    return max(1, round(duration.total_seconds() * 1000))


def _seconds(duration: timedelta) -> str:
    return f"{duration.total_seconds():g} s"
