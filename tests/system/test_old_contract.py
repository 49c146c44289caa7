"""The older contract at size: many followers, and many bytes, by certificates of plain openssl."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Generator
from pathlib import Path
from typing import cast

import grpc.aio
import pytest

from jobworker.api.compat import worker_pb2 as pb
from jobworker.api.compat.worker_pb2_grpc import WorkerServiceStub
from tests.support.machine import Script
from tests.support.pki import Authority, Credential, OpensslAuthority
from tests.support.server import Server, running_server

pytestmark = pytest.mark.system

FOLLOWERS = 150  # more than the 128 inotify instances that the kernel gives a user
RANDOM = 100 * 1024 * 1024

# tee hands the bytes to sha256sum through a FIFO; its digest follows them
RANDOM_AND_DIGEST = """
d=$(mktemp -d); mkfifo "$d/fifo"; sha256sum <"$d/fifo" >"$d/sum" &
head -c "$0" /dev/urandom | tee "$d/fifo"; wait; cat "$d/sum"; rm -r "$d"
"""


@pytest.fixture
def openssl(tmp_path: Path) -> OpensslAuthority:
    """An authority of openssl commands."""
    folder = tmp_path / "openssl"
    folder.mkdir()
    return OpensslAuthority(folder)


@pytest.fixture
def server(tmp_path: Path, openssl: OpensslAuthority) -> Generator[Server]:
    """A server with a certificate of openssl's."""
    authority = cast("Authority", openssl)  # all that is asked of it here is its certificate
    with running_server(tmp_path, "--audit-log", "off", authority=authority, certificate=openssl.server()) as server:
        yield server


@pytest.fixture
def credential(openssl: OpensslAuthority) -> Credential:
    """A client that was issued by openssl with both roles."""
    return openssl.client("old", extension="ASN1:UTF8String:admin,user")


def channel(server: Server, credential: Credential) -> grpc.aio.Channel:
    """A connection of the older client."""
    return grpc.aio.secure_channel(server.address, server.channel_credentials(credential))


async def test_many_followers_each_get_everything(server: Server, credential: Credential, script: Script) -> None:
    """150 followers of one job, half of them late, have the same complete output, and all of them end."""
    async with channel(server, credential) as connection:
        stub = WorkerServiceStub(connection)
        program, *arguments = script.argv
        job_id = (await stub.StartJob(pb.StartJobRequest(cmd=program, args=arguments))).ID
        early = [aiter(stub.GetOutputStream(pb.GetStreamRequest(id=job_id))) for _ in range(FOLLOWERS // 2)]
        script.write("first")
        for stream in early:
            assert (await anext(stream)).result == b"first\n"
        late = [aiter(stub.GetOutputStream(pb.GetStreamRequest(id=job_id))) for _ in range(FOLLOWERS // 2)]
        script.write("second")
        script.end()
        assert set(await asyncio.gather(*map(_rest, early))) == {b"second\n"}
        assert set(await asyncio.gather(*map(_rest, late))) == {b"first\nsecond\n"}
        status = await stub.GetJobStatus(pb.GetStatusRequest(id=job_id))
        assert (status.status, status.exitcode) == (pb.FINISHED, 7)


async def test_random_bytes_arrive_as_they_were_written(server: Server, credential: Credential) -> None:
    """100 MB of random bytes have the same digest for the job, a live follower and a late one."""
    async with channel(server, credential) as connection:
        stub = WorkerServiceStub(connection)
        job_id = (await stub.StartJob(pb.StartJobRequest(cmd="sh", args=["-c", RANDOM_AND_DIGEST, str(RANDOM)]))).ID
        live = await _rest(aiter(stub.GetOutputStream(pb.GetStreamRequest(id=job_id))))
        late = await _rest(aiter(stub.GetOutputStream(pb.GetStreamRequest(id=job_id))))
        data, said = live[:RANDOM], live[RANDOM:].split()[0].decode()
        assert len(data) == RANDOM
        assert hashlib.sha256(data).hexdigest() == said
        assert late == live


async def _rest(stream: AsyncIterator[pb.GetStreamResponse]) -> bytes:
    return b"".join([message.result async for message in stream])
