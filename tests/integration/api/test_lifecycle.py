"""A server begins with one line or one error, and ends without taking the jobs along, unless it was asked to."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import grpc
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

from jobworker.api.v1 import jobs_pb2 as pb
from jobworker.api.v1.jobs_pb2_grpc import JobServiceStub
from jobworker.core.errors import JobworkerError, ServerUnavailableError
from tests.integration.api.conftest import LIMIT, AuditPipe, error_of, start
from tests.support.pki import EXPIRED, NOT_YET_VALID, Authority
from tests.support.server import base_environ, running_server, serve_command

WAIT = "/jobworker.v1.JobService/WaitJob"
TICKING = ("sh", "-c", "i=0; while :; do i=$((i + 1)); echo $i; sleep 0.05; done")


def until_cut(stream: Iterator[pb.StreamOutputResponse]) -> tuple[bytes, JobworkerError]:
    """What a stream still brings, and the error that it is cut off with."""
    received = b""
    try:
        for message in stream:
            received += message.data
    except grpc.RpcError as cut:
        return received, error_of(cut)
    raise AssertionError("the stream was not cut off")


def test_a_follower_that_does_not_read_holds_up_no_end(tmp_path: Path) -> None:
    """The server ends within the grace although it is in the middle of sending to somebody who takes nothing."""
    with (
        running_server(tmp_path, "--shutdown-grace", "300ms") as server,
        server.channel(server.client("alice")) as channel,
    ):
        alice = JobServiceStub(channel)
        job = start(alice, "head", "-c", "100000000", "/dev/zero").id
        stream = alice.StreamOutput(pb.StreamOutputRequest(job_id=job, follow=True), timeout=LIMIT)
        assert next(stream).data
        alice.WaitJob(pb.WaitJobRequest(job_id=job), timeout=LIMIT)
        assert server.end() == 0
        received, cut = until_cut(stream)
        assert len(received) < 100_000_000
        assert isinstance(cut, ServerUnavailableError)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_end_leaves_the_jobs_running(tmp_path: Path, number: signal.Signals) -> None:
    """The server exits with 0 at once; its followers are told to come back; the next server has the whole output."""
    with running_server(tmp_path, stop_jobs=False) as server, server.channel(server.client("alice")) as channel:
        alice = JobServiceStub(channel)
        job = start(alice, *TICKING)
        stream = alice.StreamOutput(pb.StreamOutputRequest(job_id=job.id, follow=True), timeout=LIMIT)
        received = next(stream).data
        # As a stream, since gRPC tells of a unary call that the server has taken it only with the answer.
        wait = channel.unary_stream(WAIT, pb.WaitJobRequest.SerializeToString, pb.Job.FromString)(
            pb.WaitJobRequest(job_id=job.id), timeout=LIMIT
        )
        wait.initial_metadata()
        assert server.end(number) == 0
        rest, cut = until_cut(stream)
        received += rest
        with pytest.raises(grpc.RpcError) as waited:
            next(wait)
        for error in (cut, error_of(waited.value)):
            assert isinstance(error, ServerUnavailableError)
            assert str(error) == "the server is shutting down; running jobs go on, try again when it is back"
    with (
        running_server(tmp_path, authority=server.authority) as later,
        later.channel(server.client("alice")) as channel,
    ):
        alice = JobServiceStub(channel)
        assert alice.GetJob(pb.GetJobRequest(job_id=job.id), timeout=LIMIT).state == pb.Job.RUNNING
        assert "jobs that run on: 1; that have ended meanwhile: 0" in later.log
        offset = len(received)
        rest = alice.StreamOutput(pb.StreamOutputRequest(job_id=job.id, offset=offset, follow=True), timeout=LIMIT)
        while received.count(b"\n") < 20:
            received += next(rest).data
    lines = received.decode().split()
    assert lines == [str(number) for number in range(1, len(lines) + 1)]


def test_jobs_are_stopped_on_request(tmp_path: Path) -> None:
    """With stop_jobs_on_exit nothing is left running, and the record says that the jobs were stopped."""
    with running_server(tmp_path, stop_jobs=True) as server, server.channel(server.client("alice")) as channel:
        job = start(JobServiceStub(channel), "sleep", "600")
        assert server.end() == 0
    with (
        running_server(tmp_path, authority=server.authority) as later,
        later.channel(server.client("alice")) as channel,
    ):
        record = JobServiceStub(channel).GetJob(pb.GetJobRequest(job_id=job.id), timeout=LIMIT)
        assert (record.state, record.stop.requested_by) == (pb.Job.STOPPED, "jobworker (stop on exit)")


@contextmanager
def stubborn_job(stub: JobServiceStub, audit: AuditPipe) -> Generator[str]:
    """The id of a job that does not heed SIGTERM, and is killed when the block ends, whatever the server does."""
    job = start(stub, "sh", "-c", "trap '' TERM; echo $$; exec sleep 600").id
    stream = stub.StreamOutput(pb.StreamOutputRequest(job_id=job, follow=True), timeout=LIMIT)
    pid = int(next(stream).data)
    stream.cancel()
    audit.next_of("StreamOutput")
    try:
        yield job
    finally:
        os.kill(pid, signal.SIGKILL)


def stopping(stub: JobServiceStub, job_id: str, audit: AuditPipe) -> grpc.Future[pb.Job]:
    """A stop that is under way, with a grace of a minute."""
    request = pb.StopJobRequest(job_id=job_id)
    request.grace.FromTimedelta(timedelta(minutes=1))
    stop = stub.StopJob.future(request)  # without a deadline, which would end it just as well
    while not stub.GetJob(pb.GetJobRequest(job_id=job_id), timeout=LIMIT).HasField("stop"):
        audit.next_of("GetJob")  # else the pipe fills, and the server waits for its reader
    return stop


def test_calls_may_end_within_the_grace(tmp_path: Path) -> None:
    """A call that is under way gets its time, and no more: then it is cancelled, and the server ends well."""
    with AuditPipe(tmp_path) as audit:
        flags = ("--audit-log", str(audit.path), "--shutdown-grace", "300ms")
        with (
            running_server(tmp_path, *flags, stop_jobs=False) as server,
            server.channel(server.client("alice")) as channel,
            stubborn_job(JobServiceStub(channel), audit) as job,
        ):
            stop = stopping(JobServiceStub(channel), job, audit)
            assert server.end() == 0
            assert isinstance(error_of(stop.exception()), ServerUnavailableError)


def test_a_second_signal_hurries(tmp_path: Path) -> None:
    """Who does not want to wait for the calls says so by a second signal."""
    with AuditPipe(tmp_path) as audit:
        flags = ("--audit-log", str(audit.path), "--shutdown-grace", "1h")
        with (
            running_server(tmp_path, *flags, stop_jobs=False) as server,
            server.channel(server.client("alice")) as channel,
            stubborn_job(JobServiceStub(channel), audit) as job,
        ):
            stub = JobServiceStub(channel)
            stop = stopping(stub, job, audit)
            watch = stub.StreamOutput(pb.StreamOutputRequest(job_id=job, follow=True), timeout=LIMIT)
            assert next(watch).data
            server.process.send_signal(signal.SIGTERM)
            assert isinstance(until_cut(watch)[1], ServerUnavailableError)  # the first signal has been heard
            assert server.end(signal.SIGINT) == 0
            assert isinstance(error_of(stop.exception()), ServerUnavailableError)


def refused_start(directory: Path, *flags: str, status: int = 1) -> str:
    """What a server says that does not start. It must be one line, without a stack trace."""
    done = subprocess.run(
        serve_command(directory, *flags),
        env=base_environ(),
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT,
    )
    assert done.returncode == status, done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("jobworker: ")
    assert done.stderr.count("\n") == 1
    return done.stderr.removeprefix("jobworker: ").strip()


def test_a_second_server_does_not_start(tmp_path: Path) -> None:
    """Neither on the same port nor on the same state; the first one serves on."""
    with running_server(tmp_path) as server, server.channel(server.client("alice")) as channel:
        on_port = refused_start(tmp_path, "--listen", server.address, "--state-dir", str(tmp_path / "other"))
        assert on_port == (
            f"cannot listen on 127.0.0.1 port {server.port}: Address already in use; is another server running there?"
        )
        assert not (tmp_path / "other").exists()
        on_state = refused_start(tmp_path)
        assert on_state == f"the state directory {server.state_dir} is in use by another server"
        start(JobServiceStub(channel), "true")


def write_files(directory: Path) -> Authority:
    """The files that a server needs."""
    authority = Authority()
    (directory / "ca.crt").write_bytes(authority.certificate)
    authority.server().write(directory, "server")
    return authority


def encrypted(key: bytes) -> bytes:
    """A private key behind a passphrase."""
    encryption = BestAvailableEncryption(b"secret")
    return serialization.load_pem_private_key(key, None).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


# What is wrong with a file, and what the server says of it.
WRONG_FILES: dict[str, tuple[Callable[[Path, Authority], object], str]] = {
    "no certificate": (
        lambda d, _a: (d / "server.crt").unlink(),
        "cannot read the server certificate {}/server.crt: No such file or directory",
    ),
    "no key": (lambda d, _a: (d / "server.key").unlink(), "cannot read the private key {}/server.key: No such file"),
    "no CA": (
        lambda d, _a: (d / "ca.crt").unlink(),
        "cannot read the CA of client certificates {}/ca.crt: No such file or directory",
    ),
    "a folder": (
        lambda d, _a: ((d / "ca.crt").unlink(), (d / "ca.crt").mkdir()),
        "cannot read the CA of client certificates {}/ca.crt: Is a directory",
    ),
    "expired": (
        lambda d, a: a.server(lifetime=EXPIRED).write(d, "server"),
        "the server certificate {}/server.crt expired at ",
    ),
    "not yet valid": (
        lambda d, a: a.server(lifetime=NOT_YET_VALID).write(d, "server"),
        "the server certificate {}/server.crt is valid only from ",
    ),
    "not its key": (
        lambda d, a: (d / "server.key").write_bytes(a.server().key),
        "the private key in {0}/server.key is not the one of the certificate in {0}/server.crt",
    ),
    "encrypted key": (
        lambda d, a: (d / "server.key").write_bytes(encrypted(a.server().key)),
        "the private key {}/server.key is encrypted; the server needs it without a passphrase",
    ),
    "a certificate for a key": (
        lambda d, a: (d / "server.key").write_bytes(a.certificate),
        "{}/server.key is no private key in PEM form",
    ),
    "no PEM": (
        lambda d, _a: (d / "server.crt").write_bytes(b"\x30\x82"),
        "the server certificate {}/server.crt is malformed; it must be PEM",
    ),
    "no CA in PEM": (
        lambda d, _a: (d / "ca.crt").write_text("hello"),
        "the CA of client certificates {}/ca.crt is not one certificate or more in PEM form",
    ),
    "a state that is no folder": (lambda d, _a: (d / "state").write_text(""), "{}/state: File exists"),
    "an audit log in no folder": (
        lambda d, _a: (d / "log").symlink_to("nowhere/log"),
        "{}/log: No such file or directory",
    ),
}


@pytest.mark.parametrize("wrong", WRONG_FILES)
def test_a_wrong_file_is_told_in_one_line(tmp_path: Path, wrong: str) -> None:
    """Whoever starts the server reads which file it is and what is wrong with it."""
    spoil, text = WRONG_FILES[wrong]
    spoil(tmp_path, write_files(tmp_path))
    assert refused_start(tmp_path, "--audit-log", str(tmp_path / "log")).startswith(text.format(tmp_path))


def test_a_key_of_an_unsupported_type_is_told(tmp_path: Path) -> None:
    """Only the types for which TLS 1.2 can be shut out are taken."""
    write_files(tmp_path)
    key = tmp_path / "server.key"
    key.write_bytes(
        Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    make = ["openssl", "req", "-x509", "-key", str(key), "-out", str(tmp_path / "server.crt"), "-subj", "/CN=localhost"]
    subprocess.run(make, check=True, capture_output=True)
    assert refused_start(tmp_path) == (
        f"the server certificate {tmp_path}/server.crt has an Ed25519 key; only ECDSA and RSA keys are supported"
    )


@pytest.mark.parametrize(
    "flags, status, text",
    [
        (("--listen", "192.0.2.1:0"), 1, "cannot listen on 192.0.2.1 port 0: Cannot assign requested address"),
        (("--listen", "no-such-host.invalid:0"), 1, "cannot listen on 'no-such-host.invalid': "),
        (("--job-user", "nobody-of-that-name"), 1, "job_user: "),
        (("--retention-age", "30"), 2, "--retention-age: '30' is no duration"),
        (("--config", "/no/such/file"), 2, "cannot read the settings in /no/such/file: No such file"),
    ],
)
def test_a_wrong_setting_is_told_in_one_line(tmp_path: Path, flags: tuple[str, ...], status: int, text: str) -> None:
    """What cannot be meant is status 2, what cannot be done status 1."""
    write_files(tmp_path)
    assert refused_start(tmp_path, *flags, status=status).startswith(text)


def test_settings_come_from_a_file_and_the_environment(tmp_path: Path) -> None:
    """The file is found by the variable, and the process says what it serves on."""
    (tmp_path / "server.toml").write_text('audit_log = "audit.jsonl"\n')
    environ = {"JOBWORKER_CONFIG": str(tmp_path / "server.toml"), "JOBWORKER_MAX_RUNNING_JOBS": "1"}
    with running_server(tmp_path, environ=environ) as server, server.channel(server.client("alice")) as channel:
        start(JobServiceStub(channel), "sleep", "600")
        with pytest.raises(grpc.RpcError, match="the limit of 1 running jobs"):
            start(JobServiceStub(channel), "true")
    assert "StartJob" in (tmp_path / "audit.jsonl").read_text()


def test_the_state_is_its_owners_alone(tmp_path: Path) -> None:
    """Nobody else on the machine can read what jobs are called, let alone what they write."""
    with running_server(tmp_path) as server:
        assert server.state_dir.stat().st_mode & 0o777 == 0o700


def test_a_half_open_connection_is_closed(tmp_path: Path) -> None:
    """Who connects and says nothing is cut off within seconds."""
    with running_server(tmp_path) as server, socket.create_connection((server.host, server.port), LIMIT) as silent:
        assert silent.recv(1) == b""


def test_nothing_of_the_servers_environment_reaches_a_job(tmp_path: Path) -> None:
    """What the server was started with is not for jobs to see."""
    with (
        running_server(tmp_path, environ={"PASSWORD": "hunter2"}) as server,
        server.channel(server.client("alice")) as channel,
    ):
        alice = JobServiceStub(channel)
        job = start(alice, "env").id
        output = alice.StreamOutput(pb.StreamOutputRequest(job_id=job, follow=True), timeout=LIMIT)
        text = b"".join(message.data for message in output)
    assert b"hunter2" not in text
    assert b"NOTIFY_SOCKET" not in text
    assert b"GRPC" not in text
    assert f"JOBWORKER_JOB_ID={job}".encode() in text
