"""The API on a port: gRPC's options, the services, and an orderly end."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from typing import cast

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from jobworker.api.compat import worker_pb2
from jobworker.api.compat.worker_pb2_grpc import add_WorkerServiceServicer_to_server
from jobworker.api.v1 import jobs_pb2
from jobworker.api.v1.jobs_pb2_grpc import add_JobServiceServicer_to_server
from jobworker.server import access
from jobworker.server.audit import AuditLog
from jobworker.server.certificates import CertificateFiles, Certificates
from jobworker.server.compat import WorkerService
from jobworker.server.errors import StartError
from jobworker.server.gate import Gate
from jobworker.server.held import HeldCalls
from jobworker.server.jobs import JobService
from jobworker.server.limits import RoleLimits
from jobworker.server.port import check_free
from jobworker.server.tls import CertificateReloader
from jobworker.worker import Worker

log = logging.getLogger(__name__)

SERVICES = (
    jobs_pb2.DESCRIPTOR.services_by_name["JobService"].full_name,
    worker_pb2.DESCRIPTOR.services_by_name["WorkerService"].full_name,
    health.SERVICE_NAME,
    reflection.SERVICE_NAME,
)

MAX_CALLS = 8192  # at a time, of all users; each costs tens of kilobytes
SPARE_STREAMS = 64  # of a connection whose user holds all that it may: to ask, to stop, and to be told of the bound
IDLE_LIMIT = 5.0  # seconds that cancelled calls get to clean up: they close files and let go of jobs, no more


class Api:
    """The gRPC server of one worker, behind the gate."""

    def __init__(
        self,
        *,
        files: CertificateFiles,
        certificates: Certificates,
        audit: AuditLog,
        max_request_bytes: int,
        max_followers_per_user: int,
    ) -> None:
        self._credentials = CertificateReloader(files, certificates).credentials()
        self._held = HeldCalls(per_user=max_followers_per_user)
        self._audit = audit
        self._gate = Gate(access=access.TABLE, held=self._held, audit=audit)
        self._health = health.aio.HealthServicer()
        self._server = grpc.aio.server(
            interceptors=(self._gate,),
            options=_options(max_request_bytes=max_request_bytes, max_streams=max_followers_per_user + SPARE_STREAMS),
            maximum_concurrent_rpcs=MAX_CALLS,
        )

    def listen(self, host: str, port: int) -> int:
        """Take a port, and tell which. Calls wait there until the start. Raises `StartError`."""
        check_free(host, port)
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            return self._server.add_secure_port(address, self._credentials)
        except RuntimeError:  # it says no more than that it failed
            raise StartError(f"cannot listen on {address}") from None

    async def start(self, worker: Worker, *, limits: RoleLimits, version: str) -> None:
        """Serve the jobs of a worker, with these limits for those who start them."""
        server = cast("grpc.aio.Server", _ByName(self._server))
        add_JobServiceServicer_to_server(JobService(worker, limits=limits, version=version), server)
        add_WorkerServiceServicer_to_server(WorkerService(worker, limits=limits), server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        reflection.enable_server_reflection(SERVICES, self._server)
        for service in SERVICES:
            await self._health.set(service, health_pb2.HealthCheckResponse.SERVING)
        await self._server.start()

    async def ended(self) -> None:
        """Wait until it does not serve any more. Raises what has ended it, unless it was `end`."""
        await self._server.wait_for_termination()

    async def end(self, *, grace: timedelta, hurry: asyncio.Event) -> None:
        """Take no more calls, and end those that there are.

        Streams and waits are ended at once, and their callers are told to come back. Others may take `grace`, or until
        `hurry` is set; then they are cancelled.
        """
        await self._health.enter_graceful_shutdown()
        self._held.end_watches()
        async with asyncio.TaskGroup() as group:
            hurrying = group.create_task(self._cancel_calls_when(hurry))
            await self._server.stop(grace.total_seconds())
            hurrying.cancel()
        try:
            async with asyncio.timeout(IDLE_LIMIT):
                await self._gate.idle()
        except TimeoutError:
            log.warning("calls that were cancelled have not come to their end within %s s; leaving them", IDLE_LIMIT)
        self._audit.close()

    async def _cancel_calls_when(self, hurry: asyncio.Event) -> None:
        await hurry.wait()
        await self._server.stop(None)


class _ByName:
    """A server whose calls find their handlers by their names alone.

    For each method that it has been told of beforehand, gRPC's asyncio server has a task wait, and each call looks at
    all these tasks: with more than twenty methods that is a twentieth of what a small call takes.
    """

    def __init__(self, server: grpc.aio.Server) -> None:
        self.add_generic_rpc_handlers = server.add_generic_rpc_handlers

    def add_registered_method_handlers(self, service: str, handlers: object) -> None:
        """Keep to the names."""


def _options(*, max_request_bytes: int, max_streams: int) -> tuple[tuple[str, int], ...]:
    return (
        ("grpc.max_receive_message_length", max_request_bytes),
        ("grpc.max_concurrent_streams", max_streams),
        ("grpc.server_handshake_timeout_ms", 5_000),  # else half-open TLS connections pile up
        ("grpc.so_reuseport", 0),  # a second server on the port must fail, not take half of the calls
        # A follower whose machine has vanished is noticed within 40 s, however silent its job is.
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.http2.max_pings_without_data", 0),
        # Clients may ask every 5 s whether the server is there, also without a call; gRPC's 5 min would cut them off.
        ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
        ("grpc.keepalive_permit_without_calls", 1),
    )
