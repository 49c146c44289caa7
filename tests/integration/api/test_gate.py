"""The gate in front of a servicer that does everything a servicer should not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import grpc
import pytest

from jobworker.api.status import error_from
from jobworker.api.v1 import jobs_pb2 as pb
from jobworker.api.v1.jobs_pb2_grpc import JobServiceServicer, JobServiceStub, add_JobServiceServicer_to_server
from jobworker.auth.policy import POLICY, Permission, Scope
from jobworker.auth.roles import Role
from jobworker.core import errors
from jobworker.server import access
from jobworker.server.access import Access
from jobworker.server.audit import AuditLog
from jobworker.server.certificates import CertificateFiles, read_certificates
from jobworker.server.gate import Gate
from jobworker.server.held import HeldCalls
from jobworker.server.tls import CertificateReloader
from tests.integration.api.conftest import LIMIT
from tests.support.pki import Authority

GET, WAIT = "/jobworker.v1.JobService/GetJob", "/jobworker.v1.JobService/WaitJob"


class Lines(list[str]):
    """An audit log in memory."""

    may_wait = False

    def fileno(self) -> int:
        """None, and none is asked for."""
        raise NotImplementedError

    def write(self, line: str) -> None:
        """Keep a line."""
        self.append(line)


@dataclass(kw_only=True)
class Fixture:
    """A gate, what is behind it, and somebody in front of it."""

    gate: Gate
    held: HeldCalls
    channel: grpc.aio.Channel
    stub: Any
    lines: list[str]


@asynccontextmanager
async def gate_before(
    directory: Path,
    behave: Callable[[], Awaitable[pb.Job]],
    table: Mapping[str, Access] = access.TABLE,
    held: HeldCalls | None = None,
) -> AsyncGenerator[Fixture]:
    """A gate before a servicer whose GetJob and WaitJob behave as told, and a user who calls."""

    def method(_self: object, _request: object, _context: object) -> Awaitable[pb.Job]:
        return behave()

    # Made by hand, since the methods that it leaves out are the point of a test.
    servicer: Any = type("Servicer", (JobServiceServicer,), {"GetJob": method, "WaitJob": method})()
    authority = Authority()
    written = authority.server().write(directory, "server")
    (directory / "ca.crt").write_bytes(authority.certificate)
    files = CertificateFiles(certificate=written.certificate, key=written.key, client_ca=directory / "ca.crt")
    held, lines = held or HeldCalls(per_user=1), Lines()
    gate = Gate(access=table, held=held, audit=AuditLog(lines))
    server = grpc.aio.server(interceptors=(gate,))
    add_JobServiceServicer_to_server(servicer, server)
    port = server.add_secure_port("127.0.0.1:0", CertificateReloader(files, read_certificates(files)).credentials())
    await server.start()
    user = authority.client("alice")
    credentials = grpc.ssl_channel_credentials(authority.certificate, user.key, user.certificate)
    async with grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials) as channel:
        yield Fixture(gate=gate, held=held, channel=channel, stub=JobServiceStub(channel), lines=lines)
    await server.stop(None)
    async with asyncio.timeout(LIMIT):
        await gate.idle()


async def refusal_of(call: Awaitable[Any]) -> tuple[str, errors.JobworkerError]:
    """The code and the error that a call is refused with."""
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    status = refused.value
    return status.code().name, error_from(status.code(), status.details(), tuple(status.trailing_metadata()))


async def answer() -> pb.Job:
    """What a good servicer does."""
    return pb.Job(id="x")


async def test_a_call_without_a_row_is_denied(tmp_path: Path) -> None:
    """Nobody can call what nobody thought of, though there is a servicer for it."""
    async with gate_before(tmp_path, answer, {WAIT: Access(permission=Permission.READ)}) as fixture:
        assert (await fixture.stub.WaitJob(pb.WaitJobRequest())).id == "x"
        code, error = await refusal_of(fixture.stub.GetJob(pb.GetJobRequest()))
    assert (code, str(error)) == ("PERMISSION_DENIED", "nobody has been given access to this call")


async def test_a_call_that_no_role_permits_is_denied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gate asks the policy: a role that has a permission taken away cannot call what needs it."""
    monkeypatch.setitem(cast("dict[Role, object]", POLICY), Role.USER, {Permission.STOP: Scope.OWN})
    async with gate_before(tmp_path, answer) as fixture:
        code, error = await refusal_of(fixture.stub.GetJob(pb.GetJobRequest()))
    assert code == "PERMISSION_DENIED"
    assert isinstance(error, errors.PermissionDeniedError)
    assert "'alice' lacks the permission 'read'" in str(error)


async def test_a_call_that_a_servicer_leaves_out_is_unimplemented(tmp_path: Path) -> None:
    """What gRPC generates for it raises; the caller is told what it means."""
    async with gate_before(tmp_path, answer) as fixture:
        code, error = await refusal_of(fixture.stub.DeleteJob(pb.DeleteJobRequest()))
    assert (code, str(error)) == ("UNIMPLEMENTED", "this server does not offer the call (UNIMPLEMENTED)")


@pytest.mark.parametrize(
    "fault",
    [
        ValueError("secret"),
        OSError(28, "No space left on device", "/secret"),
        errors.JobworkerError("secret"),
        ExceptionGroup("secret", [ValueError("secret")]),
        AssertionError("secret"),
    ],
    ids=repr,
)
async def test_any_other_fault_is_internal(tmp_path: Path, caplog: pytest.LogCaptureFixture, fault: Exception) -> None:
    """Whatever it is, the caller gets an id and the log the stack trace under it."""

    async def behave() -> pb.Job:
        raise fault

    async with gate_before(tmp_path, behave) as fixture:
        code, error = await refusal_of(fixture.stub.GetJob(pb.GetJobRequest()))
    assert code == "INTERNAL"
    assert isinstance(error, errors.InternalError)
    assert "secret" not in str(error)
    (record,) = caplog.records
    assert record.getMessage() == f"incident {error.incident} in {GET}"
    assert record.exc_info
    assert record.exc_info[1] is fault
    assert "secret" not in "".join(fixture.lines)


async def test_a_cancellation_that_is_not_the_callers_is_answered(tmp_path: Path) -> None:
    """If what a call waits for is given up, the call is not left open for ever."""

    async def behave() -> pb.Job:
        raise asyncio.CancelledError

    async with gate_before(tmp_path, behave) as fixture:
        code, error = await refusal_of(fixture.stub.GetJob(pb.GetJobRequest(), timeout=LIMIT))
    assert (code, str(error)) == ("UNAVAILABLE", "the server gave the call up; try again")


async def test_held_calls_end_together_and_no_new_one_begins(tmp_path: Path) -> None:
    """When the server ends, who waits is told to come back, and who comes is, too; short calls go on."""
    both_wait, held = asyncio.Barrier(3), HeldCalls(per_user=2)

    async def behave() -> pb.Job:
        await both_wait.wait()
        await asyncio.sleep(LIMIT)  # for ever: it is cancelled
        return pb.Job()

    async with gate_before(tmp_path, behave, held=held) as fixture:
        waits = asyncio.gather(*(refusal_of(fixture.stub.WaitJob(pb.WaitJobRequest())) for _ in range(2)))
        await both_wait.wait()
        code, _ = await refusal_of(fixture.stub.WaitJob(pb.WaitJobRequest()))
        assert code == "RESOURCE_EXHAUSTED"
        held.end_watches()
        for code, error in (*await waits, await refusal_of(fixture.stub.WaitJob(pb.WaitJobRequest()))):
            assert code == "UNAVAILABLE"
            assert "the server is shutting down" in str(error)


async def test_a_call_that_comes_as_the_server_ends_is_told_so(tmp_path: Path) -> None:
    """The end that falls into the moment when a call is let in is an answer like any other."""

    class Ending(HeldCalls):
        @contextmanager
        def hold(self, user: str, kind: access.Hold) -> Generator[None]:
            asyncio.get_running_loop().call_soon(self.end_watches)
            with super().hold(user, kind):
                yield

    async with gate_before(tmp_path, answer, held=Ending(per_user=1)) as fixture:
        code, error = await refusal_of(fixture.stub.WaitJob(pb.WaitJobRequest(), timeout=LIMIT))
    assert code == "UNAVAILABLE"
    assert "the server is shutting down" in str(error)


async def test_a_timeout_of_the_servicers_own_is_a_fault(tmp_path: Path) -> None:
    """It is not taken for the end of the server."""

    async def behave() -> pb.Job:
        raise TimeoutError

    async with gate_before(tmp_path, behave) as fixture:
        code, _ = await refusal_of(fixture.stub.WaitJob(pb.WaitJobRequest()))
    assert code == "INTERNAL"


@pytest.mark.parametrize("hold", access.Hold)
async def test_who_may_wait_long_is_told_that_it_was_let_in(tmp_path: Path, hold: access.Hold) -> None:
    """The caller hears from the server before there is an answer, and so can tell silence from an outage."""
    answered = asyncio.Event()

    async def behave() -> pb.Job:
        await answered.wait()
        return pb.Job(id="x")

    async with gate_before(tmp_path, behave, {GET: Access(permission=Permission.READ, hold=hold)}) as fixture:
        # As a stream, since gRPC shows what comes before the answer of a unary call only together with it.
        call = fixture.channel.unary_stream(GET, bytes, pb.Job.FromString)(b"", timeout=LIMIT)
        await call.initial_metadata()
        assert not call.done()
        answered.set()
        assert [job.id async for job in call] == ["x"]
