"""One server for the tests of a module, and shorthands for its callers."""

from __future__ import annotations

from collections.abc import Callable, Generator

import grpc
import pytest

from jobworker.api.status import error_from
from jobworker.api.v1 import jobs_pb2 as pb
from jobworker.api.v1.jobs_pb2_grpc import JobServiceStub
from jobworker.core.errors import JobworkerError
from tests.support.server import Server, running_server

LIMIT = 30  # seconds a call; none takes that long unless it hangs


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Generator[Server]:
    """A server that the tests of a module share."""
    with running_server(tmp_path_factory.mktemp("server"), "--audit-log", "off") as running:
        yield running


@pytest.fixture(scope="module")
def alice(server: Server) -> Generator[JobServiceStub]:
    """The calls of a user."""
    with server.channel(server.client("alice")) as channel:
        yield JobServiceStub(channel)


def start(stub: JobServiceStub, *argv: str) -> pb.Job:
    """Start a job."""
    return stub.StartJob(pb.StartJobRequest(spec=pb.JobSpec(argv=argv)), timeout=LIMIT)


def ended(stub: JobServiceStub, *argv: str) -> pb.Job:
    """Start a job and wait for its end."""
    return stub.WaitJob(pb.WaitJobRequest(job_id=start(stub, *argv).id), timeout=LIMIT)


def call_raw(channel: grpc.Channel, rpc: str, request: bytes) -> bytes:
    """Call a unary RPC with bytes that may be no message."""
    return channel.unary_unary(rpc, bytes, bytes)(request, timeout=LIMIT)


def refusal_of(call: Callable[[], object]) -> JobworkerError:
    """The error that a call is refused with, as the client reads it."""
    with pytest.raises(grpc.RpcError) as refused:
        call()
    metadata = [(one.key, one.value) for one in refused.value.trailing_metadata()]
    return error_from(refused.value.code(), refused.value.details(), metadata)
