"""Limits, usage and pausing through the API of a server whose jobs have no cgroup: what it says and what it refuses."""

from __future__ import annotations

from collections.abc import Generator

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from jobworker.api.limit_names import LIMIT_FIELDS
from jobworker.api.v1 import jobs_pb2 as pb
from jobworker.api.v1.jobs_pb2_grpc import JobServiceStub
from jobworker.core import errors
from tests.integration.api.conftest import LIMIT, ended, refusal_of, start
from tests.support.server import Server, running_server

CONFIG = """
[limits.default]
pids = 50

[limits.maximum]
memory = "1GiB"

[limits.roles.admin.maximum]
memory = "8GiB"
"""
Stubs = dict[str, JobServiceStub]


@pytest.fixture(scope="module")
def unlimited(tmp_path_factory: pytest.TempPathFactory) -> Generator[Server]:
    """A server that enforces no limits, with limits in its file."""
    directory = tmp_path_factory.mktemp("unlimited")
    file = directory / "server.toml"
    file.write_text(CONFIG)
    with running_server(directory, "--config", str(file), "--cgroups", "off", "--audit-log", "off") as server:
        yield server


@pytest.fixture(scope="module")
def stubs(unlimited: Server) -> Generator[Stubs]:
    """The calls of two users and of an admin."""
    alice, bob = unlimited.client("alice"), unlimited.client("bob")
    root = unlimited.client("root", roles="admin,user")
    with unlimited.channel(alice) as one, unlimited.channel(bob) as two, unlimited.channel(root) as three:
        yield {"alice": JobServiceStub(one), "bob": JobServiceStub(two), "root": JobServiceStub(three)}


def test_a_caller_learns_its_defaults_and_maximums(stubs: Stubs) -> None:
    """Those of its role; of an admin's, even if it is a user as well."""
    for name, memory in (("alice", 1024**3), ("root", 8 * 1024**3)):
        info = stubs[name].GetServerInfo(pb.GetServerInfoRequest(), timeout=LIMIT)
        assert info.limit_defaults == pb.Limits(pids=50)
        assert info.limit_maximums == pb.Limits(memory_bytes=memory)
        assert info.cgroups == "off"


def test_every_limit_can_be_enforced_or_has_a_reason_why_not(stubs: Stubs) -> None:
    """Nobody has to guess what a server can do."""
    info = stubs["alice"].GetServerInfo(pb.GetServerInfoRequest(), timeout=LIMIT)
    assert list(info.enforceable_limits) == []
    assert {one.limit for one in info.missing_limits} == set(LIMIT_FIELDS)
    assert all(one.reason for one in info.missing_limits)


def test_what_was_configured_and_is_not_in_force_is_said(unlimited: Server, stubs: Stubs) -> None:
    """The log says so when the server starts, and the job has no such limit."""
    for limit in ("memory", "pids"):
        assert (
            f"WARNING jobworker.server.main: the limit {limit} is configured and cannot be enforced: " in unlimited.log
        )
    job = ended(stubs["alice"], "true")
    assert not job.HasField("limits")


def test_what_is_asked_for_and_cannot_be_enforced_is_refused(stubs: Stubs) -> None:
    """The wire's name of the limit and the reason come back, and no job is left."""
    spec = pb.JobSpec(argv=["true"], limits=pb.Limits(memory_bytes=2**20))
    refused = refusal_of(lambda: stubs["alice"].StartJob(pb.StartJobRequest(spec=spec), timeout=LIMIT))
    assert isinstance(refused, errors.LimitNotEnforceableError)
    assert refused.limit == "memory"


def test_a_job_without_a_cgroup_cannot_be_paused(stubs: Stubs) -> None:
    """The server says that it cannot, and the job runs on; to resume it changes nothing."""
    job = start(stubs["alice"], "sleep", "600")
    refused = refusal_of(lambda: stubs["alice"].PauseJob(pb.PauseJobRequest(job_id=job.id), timeout=LIMIT))
    assert isinstance(refused, errors.PauseNotSupportedError)
    resumed = stubs["alice"].ResumeJob(pb.ResumeJobRequest(job_id=job.id), timeout=LIMIT)
    assert (resumed.state, resumed.paused) == (pb.Job.RUNNING, False)


@pytest.mark.parametrize(
    "request_, error",
    [
        (pb.UpdateJobRequest(job=pb.Job(limits=pb.Limits(pids=5))), errors.LimitNotEnforceableError),
        (pb.UpdateJobRequest(), errors.InvalidArgumentError),
        (pb.UpdateJobRequest(update_mask=FieldMask(paths=["name"])), errors.InvalidArgumentError),
        (pb.UpdateJobRequest(job=pb.Job(owner="bob")), errors.InvalidArgumentError),
        (
            pb.UpdateJobRequest(job=pb.Job(limits=pb.Limits.FromString(bytes([15 << 3, 1])))),
            errors.InvalidArgumentError,
        ),
    ],
)
def test_an_update_that_cannot_be_made_is_refused(
    stubs: Stubs, request_: pb.UpdateJobRequest, error: type[errors.JobworkerError]
) -> None:
    """What cannot be enforced, what is no limit, what is not known here, and nothing at all."""
    request = pb.UpdateJobRequest()
    request.CopyFrom(request_)
    request.job.id = start(stubs["alice"], "sleep", "600").id
    assert isinstance(refusal_of(lambda: stubs["alice"].UpdateJob(request, timeout=LIMIT)), error)


def test_a_job_that_has_ended_cannot_be_changed(stubs: Stubs) -> None:
    """The error says where the job is."""
    alice, job_id = stubs["alice"], ended(stubs["alice"], "true").id
    mask = FieldMask(paths=["limits"])
    for call in (
        lambda: alice.PauseJob(pb.PauseJobRequest(job_id=job_id), timeout=LIMIT),
        lambda: alice.ResumeJob(pb.ResumeJobRequest(job_id=job_id), timeout=LIMIT),
        lambda: alice.UpdateJob(pb.UpdateJobRequest(job=pb.Job(id=job_id), update_mask=mask), timeout=LIMIT),
    ):
        refused = refusal_of(call)
        assert isinstance(refused, errors.JobEndedError)
        assert refused.state == "FINISHED"


def test_a_running_job_has_a_usage(stubs: Stubs) -> None:
    """At least the time since its start is known."""
    job = start(stubs["alice"], "sleep", "600")
    first, second = (stubs["alice"].GetUsage(pb.GetUsageRequest(job_id=job.id), timeout=LIMIT) for _ in range(2))
    assert 0 < first.wall_seconds < second.wall_seconds < LIMIT


def test_usages_are_of_the_running_jobs_that_the_caller_may_see(stubs: Stubs) -> None:
    """A user sees its own and an admin all; ended ones are not among them; pages lead on."""
    running = {name: start(stubs[name], "sleep", "600").id for name in ("alice", "bob")}
    over = ended(stubs["alice"], "true").id

    def listed(caller: str, owner: str = "", size: int = 0) -> set[str]:
        request = pb.ListUsagesRequest(owner=owner, page_size=size)
        found: set[str] = set()
        while True:
            page = stubs[caller].ListUsages(request, timeout=LIMIT)
            assert all(one.usage.wall_seconds > 0 for one in page.usages)
            found |= {one.job.id for one in page.usages}
            if not page.next_page_token:
                return found
            request.page_token = page.next_page_token

    assert set(running.values()) <= listed("root")
    assert listed("root", "bob") >= {running["bob"]}
    assert running["alice"] not in listed("root", "bob")
    assert running["alice"] in listed("alice", size=1)
    assert running["bob"] not in listed("alice")
    assert listed("alice", "bob") == set()
    assert over not in listed("root")
