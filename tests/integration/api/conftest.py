"""One server for the tests of a module, and shorthands for its callers."""

from __future__ import annotations

import fcntl
import json
import os
import select
from collections.abc import Callable, Generator
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

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
    return error_of(refused.value)


def error_of(refused: BaseException | None) -> JobworkerError:
    """The error that a refused call carries."""
    assert isinstance(refused, grpc.RpcError), refused
    metadata = [(one.key, one.value) for one in refused.trailing_metadata()]
    return error_from(refused.code(), refused.details(), metadata)


class AuditPipe:
    """An audit log that a test reads line by line, as the calls end."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "audit"

    def __enter__(self) -> Self:
        os.mkfifo(self.path)
        self._pipe = os.open(self.path, os.O_RDWR)  # both ways, so that it never ends
        self._read = b""
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._pipe)

    def fill(self) -> None:
        """Have it take no more, until something is read."""
        fcntl.fcntl(self._pipe, fcntl.F_SETPIPE_SZ, 4096)
        os.set_blocking(self._pipe, False)
        with suppress(BlockingIOError):
            while True:
                os.write(self._pipe, b'{"rpc": "filler"}\n'.rjust(4096))
        os.set_blocking(self._pipe, True)

    def next(self) -> dict[str, Any]:
        """The next line."""
        while b"\n" not in self._read:
            ready, _, _ = select.select([self._pipe], [], [], LIMIT)
            assert ready, "no call has ended"
            self._read += os.read(self._pipe, 65_536)
        line, _, self._read = self._read.partition(b"\n")
        return json.loads(line)

    def next_of(self, name: str) -> dict[str, Any]:
        """The next line about an RPC of this name."""
        while True:
            line = self.next()
            if line["rpc"].endswith(f"/{name}"):
                return line
