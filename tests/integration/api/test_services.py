"""Health, reflection and the server's word about itself."""

from __future__ import annotations

import signal
from importlib.metadata import version
from pathlib import Path

import grpc
import pytest
from google.protobuf import descriptor_pb2
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse

from jobworker.api.v1 import jobs_pb2 as pb
from jobworker.api.v1.jobs_pb2_grpc import JobServiceStub
from jobworker.core.errors import ServerUnavailableError
from tests.integration.api.conftest import LIMIT, error_of
from tests.support.server import Server, running_server

SERVICES = {
    "jobworker.v1.JobService",
    "proto.WorkerService",
    "grpc.health.v1.Health",
    "grpc.reflection.v1alpha.ServerReflection",
}
SERVING = HealthCheckResponse.SERVING


# The stubs that the libraries generate have no types.
def is_serving(channel: grpc.Channel, service: str) -> bool:
    """Whether a service serves."""
    call = channel.unary_unary(
        "/grpc.health.v1.Health/Check", HealthCheckRequest.SerializeToString, HealthCheckResponse.FromString
    )
    return call(HealthCheckRequest(service=service), timeout=LIMIT).status == SERVING


def reflect(server: Server, request: ServerReflectionRequest) -> ServerReflectionResponse:
    """The answer of the reflection service."""
    with server.channel(server.client("alice")) as channel:
        call = channel.stream_stream(
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
            ServerReflectionRequest.SerializeToString,
            ServerReflectionResponse.FromString,
        )
        (answer,) = call(iter([request]), timeout=LIMIT)
    return answer


@pytest.mark.parametrize("service", ["", *SERVICES])
def test_every_service_is_said_to_serve(server: Server, service: str) -> None:
    """A load balancer may ask for the server or for any of its services."""
    with server.channel(server.client("alice")) as channel:
        assert is_serving(channel, service)


def test_an_unknown_service_is_not_found(server: Server) -> None:
    """As the health service's contract has it."""
    with server.channel(server.client("alice")) as channel, pytest.raises(grpc.RpcError) as refused:
        is_serving(channel, "x")
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND


def test_a_watch_ends_when_the_server_ends(tmp_path: Path) -> None:
    """Who watches hears of the end by the end of the watch; there is nothing to wait for after it."""
    with running_server(tmp_path) as server, server.channel(server.client("alice")) as channel:
        call = channel.unary_stream(
            "/grpc.health.v1.Health/Watch", HealthCheckRequest.SerializeToString, HealthCheckResponse.FromString
        )
        watch = call(HealthCheckRequest(), timeout=LIMIT)
        assert next(watch).status == SERVING
        assert server.end(signal.SIGTERM) == 0
        with pytest.raises(grpc.RpcError) as ended:
            list(watch)
    assert isinstance(error_of(ended.value), ServerUnavailableError)


def test_reflection_names_all_services(server: Server) -> None:
    """Tools see what is there, and nothing is there that they do not see."""
    answer = reflect(server, ServerReflectionRequest(list_services=""))
    assert {service.name for service in answer.list_services_response.service} == SERVICES


@pytest.mark.parametrize("service", SERVICES)
def test_reflection_describes_a_service(server: Server, service: str) -> None:
    """With the description, a tool can call without having the .proto file."""
    answer = reflect(server, ServerReflectionRequest(file_containing_symbol=service))
    files = [
        descriptor_pb2.FileDescriptorProto.FromString(one)
        for one in answer.file_descriptor_response.file_descriptor_proto
    ]
    described = {f"{file.package}.{one.name}" for file in files for one in file.service}
    assert service in described


def test_an_undecodable_reflection_request_shows_nothing_internal(server: Server) -> None:
    """Requests of a stream are decoded behind the gate, too."""
    rpc = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
    with server.channel(server.client("alice")) as channel, pytest.raises(grpc.RpcError) as refused:
        list(channel.stream_stream(rpc, bytes, bytes)(iter([b"\xff"]), timeout=LIMIT))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert refused.value.details() == "request: is not a message of this call; was it made for another service?"


def test_the_server_says_what_it_is(alice: JobServiceStub) -> None:
    """The version is the package's; a limit that is not named would be refused."""
    info = alice.GetServerInfo(pb.GetServerInfoRequest(), timeout=LIMIT)
    assert info.version == version("jobworker")
    assert info.executor == "local"
    assert info.process_tracking in ("cgroup", "subreaper")
    assert info.durability == "process"
    assert info.job_user
    assert list(info.enforceable_limits) == []
