"""The audit log has a line for each call, and nothing in it that is nobody's business."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Generator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from signal import SIGUSR1
from typing import Any

import grpc
import pytest
from cryptography import x509

from jobworker.api.v1 import jobs_pb2 as pb
from jobworker.api.v1.jobs_pb2_grpc import JobServiceStub
from tests.integration.api.conftest import LIMIT, AuditPipe, call_raw, refusal_of, start
from tests.support.pki import Authority
from tests.support.server import Server, base_environ, running_server, serve_command

SECRET = "hunter2"  # noqa: S105 -- stands for one


@pytest.fixture
def audit(tmp_path: Path) -> Generator[AuditPipe]:
    """Where the lines come out."""
    with AuditPipe(tmp_path) as pipe:
        yield pipe


@pytest.fixture
def audited(tmp_path: Path, audit: AuditPipe) -> Generator[Server]:
    """A server that writes them."""
    with running_server(tmp_path, "--audit-log", str(audit.path)) as server:
        yield server


def test_a_call_leaves_a_line(audited: Server, audit: AuditPipe) -> None:
    """Who, from where, with which certificate, what, about which job, when, how long, with what outcome."""
    credential = audited.client("alice")
    with audited.channel(credential) as channel:
        alice = JobServiceStub(channel)
        spec = pb.JobSpec(argv=["sh", "-c", f"echo {SECRET}"], env={"PASSWORD": SECRET}, name=SECRET)
        before = datetime.now(UTC)
        job = alice.StartJob(pb.StartJobRequest(spec=spec), timeout=LIMIT).id
        line = audit.next()
        list(alice.StreamOutput(pb.StreamOutputRequest(job_id=job, follow=True), timeout=LIMIT))
        later = audit.next()
    assert set(line) == {"time", "principal", "serial", "peer", "rpc", "job", "code", "seconds"}
    assert (line["principal"], line["job"], line["code"]) == ("alice", job, "OK")
    assert line["rpc"] == "/jobworker.v1.JobService/StartJob"
    assert line["peer"].startswith("ipv4:127.0.0.1:")
    assert int(line["serial"], 16) == serial_of(credential.certificate)
    assert (
        timedelta(0) <= datetime.fromisoformat(line["time"]) - before + timedelta(milliseconds=1) < timedelta(minutes=1)
    )
    assert 0 < line["seconds"] < LIMIT
    assert (later["rpc"], later["job"], later["code"]) == ("/jobworker.v1.JobService/StreamOutput", job, "OK")
    assert SECRET not in json.dumps([line, later])
    assert SECRET not in audited.log


def serial_of(certificate: bytes) -> int:
    """The serial number of a certificate."""
    return x509.load_pem_x509_certificate(certificate).serial_number


def test_changes_of_a_job_name_it(audited: Server, audit: AuditPipe) -> None:
    """Also where the id of the job stands deeper in the request; a list is about no job in particular."""
    with audited.channel(audited.client("alice")) as channel:
        alice = JobServiceStub(channel)
        job = alice.StartJob(pb.StartJobRequest(spec=pb.JobSpec(argv=["sleep", "600"])), timeout=LIMIT).id
        refusal_of(lambda: alice.UpdateJob(pb.UpdateJobRequest(job=pb.Job(id=job)), timeout=LIMIT))
        alice.ResumeJob(pb.ResumeJobRequest(job_id=job), timeout=LIMIT)
        alice.GetUsage(pb.GetUsageRequest(job_id=job), timeout=LIMIT)
        alice.ListUsages(pb.ListUsagesRequest(), timeout=LIMIT)
    audit.next_of("StartJob")
    lines = [audit.next() for _ in range(4)]
    assert [(line["rpc"].rpartition("/")[2], line["job"], line["code"]) for line in lines] == [
        ("UpdateJob", job, "INVALID_ARGUMENT"),
        ("ResumeJob", job, "OK"),
        ("GetUsage", job, "OK"),
        ("ListUsages", None, "OK"),
    ]


def test_refusals_leave_a_line(audited: Server, audit: AuditPipe) -> None:
    """Also a call that was refused says who it was by, as far as that was known, and what it was about."""
    foreign = "6b0b0b0e-0000-4000-8000-000000000000"
    cases: list[tuple[str | None, str, bytes, tuple[Any, ...]]] = [
        ("user", "/jobworker.v1.JobService/GetJob", get(foreign), ("alice", foreign, "NOT_FOUND")),
        ("user", "/jobworker.v1.JobService/GetJob", get("x" * 3000), ("alice", "x" * 100, "NOT_FOUND")),
        ("user", "/jobworker.v1.JobService/GetJob", b"\xff", ("alice", None, "INVALID_ARGUMENT")),
        ("user", "/jobworker.v1.JobService/StartJob", b"", ("alice", None, "INVALID_ARGUMENT")),
        ("user", "/no.Such/Call", b"", ("alice", None, "UNIMPLEMENTED")),
        ("user", "/grpc.health.v1.Health/Check", b"\x0a\x01x", ("alice", None, "NOT_FOUND")),
        (None, "/jobworker.v1.JobService/GetJob", get(foreign), (None, None, "UNAUTHENTICATED")),
        (None, "/no.Such/Call", b"", (None, None, "UNAUTHENTICATED")),
    ]
    for roles, rpc, request, expected in cases:
        with audited.channel(audited.authority.client("alice", roles=roles)) as channel:
            refusal_of(lambda channel=channel, rpc=rpc, request=request: call_raw(channel, rpc, request))
        line = audit.next()
        assert (line["principal"], line["job"], line["code"]) == expected
        assert line["rpc"] == rpc


def get(job_id: str) -> bytes:
    """A request of GetJob."""
    return pb.GetJobRequest(job_id=job_id).SerializeToString()


def test_a_caller_cannot_forge_a_line(audited: Server, audit: AuditPipe) -> None:
    """Whatever stands in a name or an id, a line stays one line."""
    forged = 'x", "code": "OK"}\n{"principal": "root"}\x1b[2J'
    with audited.channel(audited.authority.client("ms. ü, née \\")) as channel:
        refusal_of(lambda: call_raw(channel, "/jobworker.v1.JobService/GetJob", get(forged)))
    line = audit.next()
    assert (line["principal"], line["job"]) == ("ms. ü, née \\", forged)


def test_a_connection_that_tls_refuses_makes_no_call(audited: Server, audit: AuditPipe) -> None:
    """The first line is that of the first call, not of the stranger before it."""
    with audited.channel(Authority("strange").client("mallory")) as channel, pytest.raises(grpc.RpcError):
        call_raw(channel, "/jobworker.v1.JobService/GetServerInfo", b"")
    with audited.channel(audited.client("alice")) as channel:
        call_raw(channel, "/jobworker.v1.JobService/GetServerInfo", b"")
    assert audit.next()["principal"] == "alice"


def test_the_log_can_be_rotated(tmp_path: Path) -> None:
    """A file that was moved away is opened anew, readable by the server's user alone; what was there is kept."""
    path = tmp_path / "audit.jsonl"
    path.write_text("before\n")
    with (
        running_server(tmp_path, "--audit-log", str(path)) as server,
        server.channel(server.client("alice")) as channel,
    ):
        call_raw(channel, "/jobworker.v1.JobService/GetServerInfo", b"")
        moved = path.rename(tmp_path / "audit.jsonl.1")
        call_raw(channel, "/jobworker.v1.JobService/ListJobs", b"")
        server.end()
    assert moved.read_text().startswith('before\n{"time": ')
    assert path.read_text().count("\n") == 1
    assert "ListJobs" in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600


TOLD = "trap 'echo told' USR1; echo ready; while :; do (trap '' USR1; exec sleep 0.05); done"


def test_a_reader_that_does_not_read(audited: Server, audit: AuditPipe) -> None:
    """Calls wait for it, and each is noted before its answer, even if its caller leaves; streams go on meanwhile."""
    with audited.channel(audited.client("alice")) as channel:
        alice = JobServiceStub(channel)
        job = start(alice, "sh", "-c", TOLD).id
        output = alice.StreamOutput(pb.StreamOutputRequest(job_id=job, follow=True), timeout=LIMIT)
        assert next(output).data == b"ready\n"
        audit.fill()
        signalled = alice.SignalJob.future(pb.SignalJobRequest(job_id=job, signal=SIGUSR1), timeout=LIMIT)
        assert next(output).data == b"told\n"
        assert not signalled.done()
        signalled.cancel()
        asked = alice.GetJob.future(pb.GetJobRequest(job_id=job), timeout=LIMIT)
        assert audit.next_of("SignalJob")["code"] == "OK"
        assert audit.next_of("GetJob")["job"] == job
        assert asked.result().id == job


def test_a_server_ends_although_nobody_reads(tmp_path: Path, audit: AuditPipe) -> None:
    """What could not be noted is among the server's messages."""
    flags = ("--audit-log", str(audit.path), "--shutdown-grace", "0s")
    with running_server(tmp_path, *flags) as server, server.channel(server.client("alice")) as channel:
        alice = JobServiceStub(channel)
        job = start(alice, "sh", "-c", TOLD).id
        output = alice.StreamOutput(pb.StreamOutputRequest(job_id=job, follow=True), timeout=LIMIT)
        assert next(output).data == b"ready\n"
        audit.fill()
        signalled = alice.SignalJob.future(pb.SignalJobRequest(job_id=job, signal=SIGUSR1), timeout=LIMIT)
        assert next(output).data == b"told\n"
        assert server.end() == 0
        assert signalled.exception() is not None
    lines = re.findall(r"cannot write to the audit log \(nobody reads it\): (.*)", server.log)
    assert {json.loads(line)["rpc"].rpartition("/")[2] for line in lines} == {"SignalJob", "StreamOutput"}


def test_a_fifo_without_a_reader(tmp_path: Path) -> None:
    """A server does not wait for one, but says what is wrong."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with running_server(tmp_path):
        pass  # which writes the certificates
    done = subprocess.run(
        serve_command(tmp_path, "--audit-log", str(fifo)),
        env=base_environ(),
        capture_output=True,
        timeout=LIMIT,
        check=False,
    )
    assert (done.returncode, done.stderr.decode()) == (1, f"jobworker: {fifo}: nobody reads this FIFO\n")


def test_by_default_the_lines_go_to_stderr(tmp_path: Path) -> None:
    """Beside the messages of the server, each on a line of its own."""
    with running_server(tmp_path) as server, server.channel(server.client("alice")) as channel:
        call_raw(channel, "/jobworker.v1.JobService/GetServerInfo", b"")
        server.end()
    lines = [json.loads(line) for line in server.log.splitlines() if line.startswith("{")]
    assert [line["code"] for line in lines] == ["OK"]


def test_a_full_disk_does_not_stop_the_calls(tmp_path: Path) -> None:
    """A line that cannot be written is in the server's messages instead."""
    with (
        running_server(tmp_path, "--audit-log", "/dev/full") as server,
        server.channel(server.client("alice")) as channel,
    ):
        call_raw(channel, "/jobworker.v1.JobService/GetServerInfo", b"")
        server.end()
    assert "cannot write to the audit log (No space left on device): {" in server.log
