"""One server for the tests of a module, and shorthands for its callers."""

from __future__ import annotations

from collections.abc import Callable, Generator
from pathlib import Path

import grpc
import pytest

from jobworker.api.v1 import jobs_pb2 as pb
from jobworker.api.v1.jobs_pb2_grpc import JobServiceStub
from tests.support.pki import Credential
from tests.support.server import Server, running_server

Connect = Callable[[Credential | None], grpc.Channel]


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


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A folder for a server of a test's own."""
    return tmp_path


def start(stub: JobServiceStub, *argv: str) -> pb.Job:
    """Start a job."""
    return stub.StartJob(pb.StartJobRequest(spec=pb.JobSpec(argv=argv)))
