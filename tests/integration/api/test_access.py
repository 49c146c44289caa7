"""Who may call what: every RPC by every kind of caller, against a real server."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Generator, Iterator
from typing import Any

import grpc
import pytest
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from jobworker.api.compat import worker_pb2
from jobworker.api.v1 import jobs_pb2 as pb
from jobworker.api.v1.jobs_pb2_grpc import JobServiceStub
from tests.integration.api.conftest import LIMIT, call_raw, start
from tests.support.pki import Authority, Credential, utf8_string
from tests.support.server import Server

OWNER = "alice"

# Every RPC of every service that is served, by its full name.
CONTRACTS = (pb, worker_pb2, health_pb2, reflection_pb2)
METHODS: dict[str, MethodDescriptor] = {
    f"/{service.full_name}/{method.name}": method
    for contract in CONTRACTS
    for service in contract.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}

# What each kind of caller is. A stranger's certificate comes from a CA that the server does not know.
CALLERS: dict[str, Callable[[Authority], Credential | None]] = {
    "admin": lambda authority: authority.client("root", roles="admin"),
    "owner": lambda authority: authority.client(OWNER),
    "other user": lambda authority: authority.client("bob"),
    "no role": lambda authority: authority.client(OWNER, roles=None),
    "unknown role": lambda authority: authority.client(OWNER, roles="user,operator"),
    "malformed extension": lambda authority: authority.client(OWNER, roles=utf8_string("user") + b"\0"),
    "other CA": lambda _authority: Authority("somebody else's CA").client(OWNER),
    "no certificate": lambda _authority: None,
}
UNKNOWN_TO_TLS = {"other CA", "no certificate"}
UNKNOWN_TO_US = {"no role", "unknown role", "malformed extension"}

# RPCs about one job, by what it must be like for an owner's call to succeed and to end.
NEEDS_RUNNING = {"StopJob", "SignalJob", "PauseJob", "ResumeJob", "UpdateJob", "GetUsage", "GetJob", "GetJobStatus"}
NEEDS_ENDED = {"WaitJob", "StreamOutput", "GetOutputStream", "DeleteJob"}
NOT_OFFERED = {"/grpc.health.v1.Health/List"}  # a part of the contract that the library does not implement


def expected(caller: str, rpc: str, beyond: Collection[str]) -> str:
    """The code that a call is answered with; `beyond` are the RPCs that this machine does not allow."""
    if caller in UNKNOWN_TO_TLS:
        return "UNAVAILABLE"  # there is no connection
    if caller in UNKNOWN_TO_US:
        return "UNAUTHENTICATED"
    if rpc in NOT_OFFERED:
        return "UNIMPLEMENTED"
    if caller == "other user" and name_of(rpc) in NEEDS_RUNNING | NEEDS_ENDED:
        return "NOT_FOUND"
    return "FAILED_PRECONDITION" if name_of(rpc) in beyond else "OK"


def name_of(rpc: str) -> str:
    """The name without the service."""
    return rpc.rpartition("/")[2]


@pytest.fixture(scope="module")
def channels(server: Server) -> Generator[dict[str, grpc.Channel]]:
    """A connection for each kind of caller."""
    with contextlib.ExitStack() as stack:
        yield {caller: stack.enter_context(server.channel(make(server.authority))) for caller, make in CALLERS.items()}


@pytest.fixture(scope="module")
def beyond(channels: dict[str, grpc.Channel]) -> set[str]:
    """The RPCs that this machine does not allow the server to do."""
    info = JobServiceStub(channels["owner"]).GetServerInfo(pb.GetServerInfoRequest(), timeout=LIMIT)
    needs = {"PauseJob": info.process_tracking == "cgroup", "UpdateJob": "pids" in info.enforceable_limits}
    return {rpc for rpc, possible in needs.items() if not possible}


@pytest.fixture
def job_for(channels: dict[str, grpc.Channel]) -> Callable[[str], str]:
    """Makes a job of the owner's as an RPC needs it, and gives its id."""
    stub = JobServiceStub(channels["owner"])

    def job_for(rpc: str) -> str:
        if name_of(rpc) in NEEDS_RUNNING:
            return start(stub, "sleep", "600").id
        if name_of(rpc) in NEEDS_ENDED:
            return stub.WaitJob(pb.WaitJobRequest(job_id=start(stub, "echo", "hello").id), timeout=LIMIT).id
        return ""

    return job_for


def request_for(method: MethodDescriptor, job_id: str) -> Message:
    """A request that is right in itself."""
    request: Any = message_factory.GetMessageClass(method.input_type)()
    fields = method.input_type.fields_by_name
    if method.full_name == "jobworker.v1.JobService.StartJob":
        request.spec.argv.append("true")
    elif method.full_name == "proto.WorkerService.StartJob":
        request.cmd = "true"
    elif method.name == "SignalJob":
        request.signal = 10
    elif method.name == "UpdateJob":
        request.job.id = job_id
        request.job.limits.pids = 1000
    elif method.name == "ServerReflectionInfo":
        request.list_services = ""
    for field in ("job_id", "id"):
        if field in fields:
            setattr(request, field, job_id)
    return request


def call(channel: grpc.Channel, rpc: str, request: Message, method: MethodDescriptor) -> list[Message]:
    """Call an RPC and give its responses; of a watch, which has no end, the first."""
    read = message_factory.GetMessageClass(method.output_type).FromString
    write = type(request).SerializeToString
    if not method.server_streaming:
        return [channel.unary_unary(rpc, write, read)(request, timeout=LIMIT)]
    responses: Any
    if method.client_streaming:
        responses = channel.stream_stream(rpc, write, read)(iter([request]), timeout=LIMIT)
    else:
        responses = channel.unary_stream(rpc, write, read)(request, timeout=LIMIT)
    if method.name == "Watch":
        first = next(responses)
        responses.cancel()
        return [first]
    return list(responses)


@pytest.mark.parametrize("rpc", METHODS)
@pytest.mark.parametrize("caller", CALLERS)
def test_every_rpc_by_every_caller(
    caller: str, rpc: str, channels: dict[str, grpc.Channel], job_for: Callable[[str], str], beyond: set[str]
) -> None:
    """An RPC does what it should for those who may, and nothing for anybody else, with the right code."""
    method = METHODS[rpc]
    request = request_for(method, job_for(rpc))
    try:
        responses = call(channels[caller], rpc, request, method)
        code = "OK"
    except grpc.RpcError as error:
        responses = []
        code = error.code().name
    assert code == expected(caller, rpc, beyond)
    assert bool(responses) == (code == "OK")


@pytest.mark.parametrize("caller", CALLERS)
def test_an_rpc_that_is_not_offered(caller: str, channels: dict[str, grpc.Channel]) -> None:
    """Only who may call something learns that there is no such RPC; tools try newer contracts that way."""
    rpc = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
    with pytest.raises(grpc.RpcError) as refused:
        call_raw(channels[caller], rpc, b"")
    known = caller not in UNKNOWN_TO_TLS | UNKNOWN_TO_US
    assert refused.value.code().name == ("UNIMPLEMENTED" if known else expected(caller, "/x/X", set()))


def test_a_stranger_is_told_nothing_by_an_undecodable_request(channels: dict[str, grpc.Channel]) -> None:
    """Authorisation comes before the request is even decoded."""
    rpc = "/jobworker.v1.JobService/GetJob"
    codes: dict[str, str] = {}
    for caller in ("owner", "no role"):
        with pytest.raises(grpc.RpcError) as refused:
            call_raw(channels[caller], rpc, b"\xff\xff\xff")
        codes[caller] = refused.value.code().name
    assert codes == {"owner": "INVALID_ARGUMENT", "no role": "UNAUTHENTICATED"}


def test_an_admin_lists_all_and_a_user_its_own(channels: dict[str, grpc.Channel]) -> None:
    """A user sees no job of another's in a list, whatever it asks for; an admin sees all, or those of one owner."""
    stubs = {caller: JobServiceStub(channels[caller]) for caller in ("admin", "owner", "other user")}
    mine = start(stubs["owner"], "true").id
    others = start(stubs["other user"], "true").id

    def listed(caller: str, owner: str = "") -> set[str]:
        def pages() -> Iterator[pb.Job]:
            request = pb.ListJobsRequest(owner=owner, page_size=1000)
            while True:
                response = stubs[caller].ListJobs(request, timeout=LIMIT)
                yield from response.jobs
                request.page_token = response.next_page_token
                if not request.page_token:
                    return

        return {job.id for job in pages()}

    assert {mine, others} <= listed("admin")
    assert others in listed("admin", "bob")
    assert mine not in listed("admin", "bob")
    assert mine in listed("owner")
    assert others not in listed("owner")
    assert listed("owner", "bob") == set()
    assert listed("other user", OWNER) == set()


def test_what_an_admin_stops_is_said_to_be_stopped_by_the_admin(channels: dict[str, grpc.Channel]) -> None:
    """The record says who asked for the stop; the owner stays the owner."""
    owner, admin = JobServiceStub(channels["owner"]), JobServiceStub(channels["admin"])
    job = admin.StopJob(pb.StopJobRequest(job_id=start(owner, "sleep", "600").id), timeout=LIMIT)
    assert (job.owner, job.stop.requested_by, pb.Job.State.Name(job.state)) == (OWNER, "root", "STOPPED")
