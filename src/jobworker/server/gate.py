"""The gate that every call passes, unary and streaming alike: who calls, may they, and what came of it.

A call is authenticated and authorised before its request is even decoded. Errors become gRPC statuses here and nowhere
else, and each call leaves a line in the audit log.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any, NoReturn, TypeAlias

import grpc
from google.protobuf.message import DecodeError

from jobworker.auth.identity import Principal, principal_from_pem
from jobworker.auth.policy import authorize
from jobworker.core.errors import (
    InvalidArgumentError,
    PermissionDeniedError,
    ServerUnavailableError,
    UnauthenticatedError,
)
from jobworker.server.access import Access, Hold
from jobworker.server.audit import AuditLog, AuditRecord
from jobworker.server.call import Call, Context, current_call
from jobworker.server.faults import public_status
from jobworker.server.held import HeldCalls
from jobworker.server.tls import check_tls_version

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"  # a text, since it is generic in the stubs only
Work = Callable[[], Awaitable[Any]]

_NO_SUCH_CALL = "this server does not offer the call"

# By whether the request and the response are streams.
_HANDLER_KINDS = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}


@dataclass(kw_only=True, slots=True)
class _Record:
    """What becomes known of a call on its way through the gate."""

    rpc: str
    begin: datetime = field(default_factory=lambda: datetime.now(UTC))
    begin_clock: float = field(default_factory=time.monotonic)
    principal: Principal | None = None
    call: Call | None = None
    code: str = "OK"

    def for_audit(self, peer: str) -> AuditRecord:
        return AuditRecord(
            time=self.begin,
            rpc=self.rpc,
            peer=peer,
            code=self.code,
            seconds=time.monotonic() - self.begin_clock,
            principal=self.principal and self.principal.name,
            serial=self.principal and self.principal.serial,
            job_id=self.call and self.call.job_id,
        )


class Gate(grpc.aio.ServerInterceptor):
    """Lets through what the table of access allows; see the module's description."""

    def __init__(self, *, access: Mapping[str, Access], held: HeldCalls, audit: AuditLog) -> None:
        self._access = access
        self._held = held
        self._audit = audit
        self._handlers: dict[str, Handler] = {}  # by the full name of the RPC
        self._tasks: set[asyncio.Task[Any]] = set()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        """The handler of an RPC, behind the gate."""
        rpc = handler_call_details.method
        if (gated := self._handlers.get(rpc)) is None:
            handler = await continuation(handler_call_details)
            if handler is None:  # which is not kept, since callers choose the names of such calls
                return self._refusing(rpc)
            gated = self._handlers[rpc] = self._gated(rpc, handler)
        return gated

    async def idle(self) -> None:
        """Wait until no call is at work any more, and all are audited."""
        while self._tasks:
            await asyncio.wait(self._tasks)
        await self._audit.caught_up()

    def _refusing(self, rpc: str) -> Handler:
        async def refuse(_requests: object, context: Context) -> None:
            await self._pass(rpc, context, partial(_abort_unimplemented, context), offered=False)

        return grpc.stream_stream_rpc_method_handler(refuse)

    def _gated(self, rpc: str, handler: Handler) -> Handler:
        async def behave(raw: Any, context: Context) -> Any:  # noqa: ANN401 -- bytes or an iterator of them, one message or none
            return await self._pass(rpc, context, partial(_work, handler, raw, context))

        kind = _HANDLER_KINDS[handler.request_streaming, handler.response_streaming]
        return kind(behave, None, partial(_encoded, handler))  # None: the request is decoded behind the gate

    async def _pass(self, rpc: str, context: Context, work: Work, *, offered: bool = True) -> Any:  # noqa: ANN401 -- a response, if the RPC has just one
        """Have a call be known while it is at work, and audited when it is over; none begins that cannot be noted."""
        task = _current_task()
        record = _Record(rpc=rpc)
        await self._audit.caught_up()
        self._tasks.add(task)
        try:
            return await self._answer(record, context, work, offered=offered)
        except asyncio.CancelledError:  # the caller has left
            record.code = "CANCELLED"
            raise
        except grpc.aio.AbortError:
            record.code = context.code().name
            raise
        except grpc.aio.InternalError:  # of an answer that gRPC does not take: it has ended the call by itself
            record.code = "CANCELLED"
            raise asyncio.CancelledError from None  # gRPC would log its own error with a stack trace
        finally:
            self._tasks.discard(task)
            await self._audit.write(record.for_audit(context.peer()))

    async def _answer(self, record: _Record, context: Context, work: Work, *, offered: bool) -> Any:  # noqa: ANN401 -- as above
        try:
            return await self._admit(record, context, work, offered=offered)
        except (grpc.aio.AbortError, grpc.aio.InternalError):
            raise
        except NotImplementedError:  # a call of a contract that its servicer does not have
            await _abort_unimplemented(context)
        except Exception as error:  # noqa: BLE001 -- all of them end here: none may reach a caller as it is
            status = public_status(error, record.rpc)
            await context.abort(status.code, status.text, status.trailing_metadata)

    async def _admit(self, record: _Record, context: Context, work: Work, *, offered: bool) -> Any:  # noqa: ANN401 -- as above
        record.principal = principal = _authenticate(context)
        if not offered:
            return await work()
        access = self._authorize(record.rpc, principal)
        record.call = Call(principal=principal, permission=access.permission)
        current_call.set(record.call)
        try:
            if access.hold is None:
                return await work()
            with self._held.hold(principal.name, access.hold):
                # The caller learns that it was let in, however long there is nothing to say. Not within the watch: gRPC
                # takes no other answer to a call whose metadata it was kept from sending.
                await context.send_initial_metadata(())
                if access.hold is not Hold.WATCH:
                    return await work()
                async with self._held.watch():
                    return await work()
        except asyncio.CancelledError:
            if _current_task().cancelling():
                raise
            # Nobody has cancelled this call, but what it waits for was given up: its caller must hear of it.
            raise ServerUnavailableError("the server gave the call up; try again") from None

    def _authorize(self, rpc: str, principal: Principal) -> Access:
        access = self._access.get(rpc)
        if access is None:
            raise PermissionDeniedError("nobody has been given access to this call")
        authorize(principal, access.permission)
        return access


def _authenticate(context: Context) -> Principal:
    auth_context = context.auth_context()
    check_tls_version(auth_context)
    certificates = list(auth_context.get("x509_pem_cert", ()))
    if len(certificates) != 1:
        raise UnauthenticatedError("a client certificate is required")
    return principal_from_pem(certificates[0])


async def _work(handler: Handler, raw: Any, context: Context) -> Any:  # noqa: ANN401 -- see Gate
    """Have the servicer's method work on the decoded request, whichever way it is written."""
    behaviour: Any = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
    request = _decoded_stream(handler, raw) if handler.request_streaming else _decoded(handler, raw)
    result = behaviour(request, context)
    if not inspect.isasyncgen(result):
        return await result
    async with aclosing(result) as responses:  # gRPC would leave a generator open that its caller has left
        async for response in responses:
            await context.write(response)
    return None


def _decoded(handler: Handler, raw: bytes) -> Any:  # noqa: ANN401 -- a request of the RPC
    assert handler.request_deserializer is not None, "generated servicers always have one"  # noqa: S101 -- for the type
    try:
        return handler.request_deserializer(raw)
    except DecodeError:
        raise InvalidArgumentError(
            "request", "is not a message of this call; was it made for another service?"
        ) from None


def _encoded(handler: Handler, response: Any) -> bytes:  # noqa: ANN401 -- a response of the RPC, or one that is encoded
    assert handler.response_serializer is not None, "generated servicers always have one"  # noqa: S101 -- for the type
    return response if isinstance(response, bytes) else handler.response_serializer(response)


async def _decoded_stream(handler: Handler, raw: AsyncIterator[bytes]) -> AsyncIterator[Any]:
    async for message in raw:
        yield _decoded(handler, message)


async def _abort_unimplemented(context: Context) -> NoReturn:
    await context.abort(grpc.StatusCode.UNIMPLEMENTED, _NO_SUCH_CALL)


def _current_task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None, "gRPC runs every call in a task"  # noqa: S101 -- for the type
    return task
