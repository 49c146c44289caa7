"""Certificates that are renewed, or expire, while a client is at work."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn

import grpc
import pytest

from jobworker.api.convert import job_message
from jobworker.client import AsyncClient, Timeouts, backoff
from jobworker.core.errors import ServerUnavailableError, UnauthenticatedError
from tests.support.pki import EXPIRED, Credential
from tests.unit.client.scripted import (
    ALICE,
    AUTHORITY,
    ENDED,
    RUNNING,
    Context,
    Script,
    Step,
    fail,
    last,
    piece,
    refuse,
    scripted_server,
)

RENEWED = AUTHORITY.client("alice")
AWAY = fail(grpc.StatusCode.UNAVAILABLE, "Socket closed")


@pytest.fixture(autouse=True)
def files(tmp_path: Path) -> Path:
    """The folder of the client's certificate and key."""
    ALICE.write(tmp_path, "alice")
    return tmp_path


def client_with(files: Path, script: Script, *, reconnect: timedelta = timedelta(seconds=30)) -> AsyncClient:
    """A client that has its certificate from there."""
    return AsyncClient(
        script.address,
        ca=AUTHORITY.certificate,
        cert=files / "alice.crt",
        key=files / "alice.key",
        timeouts=Timeouts(reconnect=reconnect),
    )


def after(change: Callable[[], object], then: Step) -> Step:
    """Change something, and then do that."""

    async def step(context: Context) -> object:
        change()
        return await then(context)

    return step


def seen(certificates: list[Any]) -> Step:
    """Answer, and keep the certificate that the client has shown."""

    async def step(context: Context) -> object:
        certificates.extend(context.auth_context()["x509_pem_cert"])
        return job_message(RUNNING)

    return step


@pytest.mark.parametrize(
    "trouble", [AWAY, refuse(UnauthenticatedError("the certificate has expired"))], ids=["away", "expired"]
)
async def test_a_renewed_certificate_is_used(files: Path, trouble: Step) -> None:
    """After an outage, and when an open connection's is not accepted any more."""
    shown: list[Any] = []
    renew = after(lambda: RENEWED.write(files, "alice"), trouble)
    async with scripted_server(seen(shown), renew, seen(shown)) as script, client_with(files, script) as client:
        await client.get("id")
        await client.get("id")
    assert shown == [ALICE.certificate, RENEWED.certificate]


async def test_a_pair_that_does_not_fit_is_not_used(files: Path) -> None:
    """While a certificate is being renewed, its key may not be there yet: the two before are used until it is."""
    shown: list[Any] = []
    half = after(lambda: (files / "alice.crt").write_bytes(RENEWED.certificate), AWAY)
    whole = after(lambda: (files / "alice.key").write_bytes(RENEWED.key), AWAY)
    gone = after((files / "alice.crt").unlink, AWAY)
    async with (
        scripted_server(half, seen(shown), whole, seen(shown), gone, seen(shown)) as script,
        client_with(files, script) as client,
    ):
        for _ in range(3):
            await client.get("id")
    assert shown == [ALICE.certificate, RENEWED.certificate, RENEWED.certificate]


async def test_a_refusal_without_a_renewal_stays_one(files: Path) -> None:
    """Where nothing is new, a certificate that is not accepted is an error at once."""
    refusal = refuse(UnauthenticatedError("the certificate has expired"))
    async with scripted_server(refusal) as script, client_with(files, script) as client:
        with pytest.raises(UnauthenticatedError):
            await client.get("id")


async def test_calls_under_way_outlive_a_renewal(files: Path) -> None:
    """A stream goes on over the connection that it has, whatever other calls use from then on."""
    renewed = asyncio.Event()
    shown: list[Any] = []

    async def halves(context: Context) -> None:
        await context.write(piece(0, b"first "))
        await renewed.wait()
        await context.write(piece(6, b"second"))
        await context.write(last(12, ENDED))

    renew = after(lambda: RENEWED.write(files, "alice"), AWAY)
    async with scripted_server(halves, renew, seen(shown)) as script, client_with(files, script) as client:
        stream = client.stream("id")
        assert (await anext(stream)).data == b"first "
        await client.get("id")
        renewed.set()
        assert [chunk.data async for chunk in stream] == [b"second"]
    assert (shown, script.requests[0].offset, len(script.requests)) == ([RENEWED.certificate], 0, 3)


@pytest.fixture
def expired(monkeypatch: pytest.MonkeyPatch) -> Credential:
    """A certificate that no server accepts, and outages that are long at once."""
    monkeypatch.setattr(backoff, "LONG", timedelta(0))
    return AUTHORITY.client("alice", lifetime=EXPIRED)


async def test_an_expired_certificate_is_not_waited_for(files: Path, expired: Credential) -> None:
    """Where the server is there, no time mends that, and none is spent."""

    async def expire(context: Context) -> NoReturn:
        expired.write(files, "alice")
        await context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")

    async with (
        scripted_server(expire) as script,
        client_with(files, script, reconnect=timedelta(hours=1)) as client,
    ):
        with pytest.raises(ServerUnavailableError, match=r"^the client certificate .*alice.crt expired on .*: ask for"):
            await client.wait("id")


async def test_a_server_that_is_away_is_waited_for(files: Path, expired: Credential) -> None:
    """Even with a certificate that has expired: until the server is back, there is time for a new one."""
    shown: list[Any] = []
    async with scripted_server(seen(shown)) as script:
        client = client_with(files, script, reconnect=timedelta(seconds=0.3))
        await client.get("id")
        expired.write(files, "alice")
    async with client:
        with pytest.raises(ServerUnavailableError, match=r"^no contact for 0.3 s: nothing listens at"):
            await client.wait("id")
