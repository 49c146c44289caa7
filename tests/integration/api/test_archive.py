"""Output that a server has compressed and archived, over the wire."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

from jobworker.api.v1 import jobs_pb2 as pb
from jobworker.api.v1.jobs_pb2_grpc import JobServiceStub
from jobworker.core.errors import OutputUnavailableError
from tests.integration.api.conftest import LIMIT, refusal_of
from tests.support.polling import until
from tests.support.server import running_server


def stream(stub: JobServiceStub, job: pb.Job, offset: int = 0) -> bytes:
    """The output from an offset on."""
    request = pb.StreamOutputRequest(job_id=job.id, offset=offset)
    return b"".join(message.data for message in stub.StreamOutput(request, timeout=LIMIT))


def test_archived_output_is_served_until_the_archive_does_not_answer(tmp_path: Path) -> None:
    """At any offset; then reading it is an error of its own, and the log says what could not be archived."""
    archive = tmp_path / "archive"
    flags = ("--archive-url", str(archive), "--archive-after", "0s", "--audit-log", "off")
    with running_server(tmp_path, "--audit-log", "off") as server, server.channel(server.client("alice")) as channel:
        stub = JobServiceStub(channel)
        spec = pb.JobSpec(argv=["seq", "100000"])
        job = stub.StartJob(pb.StartJobRequest(spec=spec), timeout=LIMIT)
        job = stub.WaitJob(pb.WaitJobRequest(job_id=job.id), timeout=LIMIT)
        expected = stream(stub, job)
        server.end()
    files = server.state_dir / "jobs" / job.id
    with running_server(tmp_path, *flags) as server:  # the folder is not there
        stays = f"WARNING jobworker.server.main: the output of job {job.id} stays where it is for now: FileNotFound"
        asyncio.run(until(lambda: stays in server.log))
        server.end()
    archive.mkdir()
    with running_server(tmp_path, *flags) as server, server.channel(server.client("alice")) as channel:
        stub = JobServiceStub(channel)
        asyncio.run(until(lambda: not (files / "output.zst").exists()))
        assert stub.GetJob(pb.GetJobRequest(job_id=job.id), timeout=LIMIT) == job
        assert stream(stub, job) == expected
        assert stream(stub, job, 345_678) == expected[345_678:]
        shutil.rmtree(archive)
        error = refusal_of(lambda: stream(stub, job))
        assert isinstance(error, OutputUnavailableError)
        assert error.job_id == job.id


def test_a_server_says_at_its_start_that_its_archive_cannot_be_used(tmp_path: Path) -> None:
    """And serves all the same."""
    archive = tmp_path / "archive"
    flags = ("--archive-url", str(archive), "--audit-log", "off")
    warning = f"WARNING jobworker.server.main: the archive: {archive}: no file can be put there"
    with running_server(tmp_path, *flags) as server:
        asyncio.run(until(lambda: warning in server.log))
