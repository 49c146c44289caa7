"""The older contract, spoken by a client of its own with certificates made by plain openssl."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Generator
from pathlib import Path

import pytest

from jobworker.api.v1 import jobs_pb2 as pb
from jobworker.api.v1.jobs_pb2_grpc import JobServiceStub
from tests.integration.api.conftest import LIMIT
from tests.support.older_client import OlderClient, older_client
from tests.support.pki import OpensslAuthority
from tests.support.server import Server, running_server


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the files of all are."""
    return tmp_path_factory.mktemp("older")


@pytest.fixture(scope="module")
def authority(directory: Path) -> OpensslAuthority:
    """The CA of the older service's users."""
    (directory / "pki").mkdir()
    return OpensslAuthority(directory / "pki")


@pytest.fixture(scope="module")
def server(directory: Path, authority: OpensslAuthority) -> Generator[Server]:
    """A server with certificates of that CA."""
    with running_server(directory, ca=authority.certificate, certificate=authority.server()) as running:
        yield running


@pytest.fixture(scope="module")
def client(directory: Path, authority: OpensslAuthority, server: Server) -> Generator[OlderClient]:
    """A user of the older service."""
    files = authority.client("carol", extension="ASN1:UTF8String:user").write(directory, "carol")
    with older_client(directory, server.address, server.ca, files) as connected:
        yield connected


@pytest.fixture(scope="module")
def admin(authority: OpensslAuthority, server: Server) -> Generator[JobServiceStub]:
    """An admin who speaks the newer contract."""
    credential = authority.client("root", extension="ASN1:UTF8String:admin,user")
    with server.channel(credential) as channel:
        yield JobServiceStub(channel)


def digest_of(data: bytes) -> list[object]:
    """Size and digest as the client gives them."""
    return [len(data), hashlib.sha256(data).hexdigest()]


def test_a_job_from_start_to_end(client: OlderClient) -> None:
    """Start, follow to the end, ask: the bytes are the job's, and so is the exit code."""
    job = client.call("start", "sh", "-c", "printf 'a\\0b'; sleep 0.2; printf '\\377' >&2; exit 7")
    assert client.call("digests", job, 1) == [digest_of(b"a\0b\xff")]
    assert client.call("status", job) == ["FINISHED", 7]
    assert client.call("digests", job, 1) == [digest_of(b"a\0b\xff")]


def test_a_job_that_is_stopped(client: OlderClient, admin: JobServiceStub) -> None:
    """It runs with exit code 0, is stopped once, and the stop is told as such, with the signal in the exit code."""
    job = client.call("start", "sleep", "600")
    assert client.call("status", job) == ["RUNNING", 0]
    assert client.call("stop", job) == ""
    assert client.call("status", job) == ["STOPPED", 128 + 15]
    assert admin.GetJob(pb.GetJobRequest(job_id=job), timeout=LIMIT).stop.requested_by == "carol"


def test_a_job_that_heeds_a_stop_has_its_own_exit_code(client: OlderClient, admin: JobServiceStub) -> None:
    """It was stopped, and its exit code is what it chose."""
    job = client.call("start", "sh", "-c", "trap 'exit 3' TERM; echo ready; sleep 600 & wait")
    stream = admin.StreamOutput(pb.StreamOutputRequest(job_id=job, follow=True), timeout=LIMIT)
    assert next(stream).data == b"ready\n"
    assert client.call("stop", job) == ""
    assert client.call("status", job) == ["STOPPED", 3]


@pytest.mark.parametrize(
    "command, status",
    [(["true"], ["FINISHED", 0]), (["sh", "-c", "kill -KILL $$"], ["FINISHED", 128 + 9])],
)
def test_stopping_an_ended_job_is_no_error_and_changes_nothing(
    client: OlderClient, command: list[str], status: list[object]
) -> None:
    """The older clients stop what they no longer need; the record stays as it was."""
    job = client.call("start", *command)
    client.call("digests", job, 1)
    assert client.call("status", job) == status
    assert client.call("stop", job) == ""
    assert client.call("status", job) == status


def test_what_is_missing_is_left_out(client: OlderClient, authority: OpensslAuthority, server: Server) -> None:
    """There is no word for a gap: a follower gets what is kept, and then the end."""
    spec = pb.JobSpec(
        argv=["head", "-c", "100000", "/dev/zero"],
        output_limit=pb.OutputLimit(bytes=65_536, policy=pb.OutputLimit.DROP),
    )
    with server.channel(authority.client("carol", extension="ASN1:UTF8String:user")) as channel:
        job = JobServiceStub(channel).StartJob(pb.StartJobRequest(spec=spec), timeout=LIMIT).id
    assert client.call("digests", job, 1) == [digest_of(bytes(65_536))]


def test_150_followers_and_a_late_one_get_every_byte(client: OlderClient) -> None:
    """All see the same megabytes of random bytes, of which nobody but the job knew before."""
    job = client.call("start", "head", "-c", "1000000", "/dev/urandom")
    (live,) = client.call("digests", job, 150)
    assert live[0] == 1_000_000
    assert client.call("digests", job, 1) == [live]


def test_100_megabytes_of_random_bytes(client: OlderClient) -> None:
    """Live and late, the same 100 MB."""
    job = client.call("start", "head", "-c", "100000000", "/dev/urandom")
    (live,) = client.call("digests", job, 1)
    assert live[0] == 100_000_000
    assert client.call("digests", job, 1) == [live]


def test_what_is_wrong_has_its_code(client: OlderClient) -> None:
    """Not UNKNOWN or INTERNAL, as from the older service, but what it is."""
    missing = str(uuid.uuid4())
    for command in ("stop", "status"):
        assert client.call(command, missing) == {"code": "NOT_FOUND", "details": f"no job '{missing}'"}
    assert client.call("digests", missing, 1)["code"] == "NOT_FOUND"
    assert client.call("start", "")["code"] == "INVALID_ARGUMENT"
    assert client.call("start", "no-such-program") == {
        "code": "FAILED_PRECONDITION",
        "details": "cannot start 'no-such-program': command not found (on the server; PATH is the job's, no shell is "
        "involved)",
    }


def test_both_contracts_show_the_same_jobs(client: OlderClient, admin: JobServiceStub) -> None:
    """A job of either is one of both, with the same id and owner."""
    older = client.call("start", "true")
    assert admin.WaitJob(pb.WaitJobRequest(job_id=older), timeout=LIMIT).owner == "carol"
    newer = admin.StartJob(pb.StartJobRequest(spec=pb.JobSpec(argv=["true"])), timeout=LIMIT).id
    assert client.call("status", newer) == {"code": "NOT_FOUND", "details": f"no job '{newer}'"}


def test_nobody_without_a_role_is_served(directory: Path, authority: OpensslAuthority, server: Server) -> None:
    """A certificate of the right CA without the extension is refused by the older contract, too."""
    files = authority.client("dave", extension=None).write(directory, "dave")
    with older_client(directory, server.address, server.ca, files) as stranger:
        assert stranger.call("start", "true")["code"] == "UNAUTHENTICATED"
        assert stranger.call("digests", str(uuid.uuid4()), 1)["code"] == "UNAUTHENTICATED"
