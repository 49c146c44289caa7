"""The client's values: addresses, credentials, back-off, and the one number for how a job ended."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from jobworker.client import RunResult, Timeouts, exit_code
from jobworker.client.backoff import FIRST_DELAY, LONG, MAX_DELAY, Backoff
from jobworker.client.connection import Connection
from jobworker.client.credentials import Credentials
from jobworker.core.address import Address
from jobworker.core.errors import ServerUnavailableError
from jobworker.core.job import Job, JobEnd
from jobworker.core.state import Cause
from tests.support.jobs import NOON, accepted_job, started
from tests.unit.client.scripted import ALICE, AUTHORITY


@pytest.mark.parametrize(
    "text, host, port",
    [
        ("build1.example.org:8443", "build1.example.org", 8443),
        ("10.0.0.7:1", "10.0.0.7", 1),
        ("[::1]:65535", "::1", 65535),
    ],
)
def test_address(text: str, host: str, port: int) -> None:
    """An address is read as people write it, and written as it was read."""
    address = Address.parse(text)
    assert (address.host, address.port, str(address)) == (host, port, text)


@pytest.mark.parametrize(
    "text", ["", "host", "host:", ":1", "host:0", "host:65536", "host:x", "::1:80", "[]:1", "host:²"]
)
def test_no_address(text: str) -> None:
    """What is no address is refused with what would be one."""
    with pytest.raises(ValueError, match=r"HOST:PORT|number from 1"):
        Address.parse(text)


class Clock:
    """Time that a test makes pass."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Seconds."""
        return self.now


def longest(_low: float, high: float) -> float:
    """No jitter: always the longest delay."""
    return high


def test_backoff_doubles_up_to_its_maximum() -> None:
    """Delays grow from the first to the longest and stay there."""
    backoff = Backoff(timedelta(hours=1), clock=Clock(), jitter=longest)
    delays = [backoff.failure() for _ in range(9)]
    assert delays[:3] == [FIRST_DELAY, FIRST_DELAY * 2, FIRST_DELAY * 4]
    assert delays[-2:] == [MAX_DELAY, MAX_DELAY]


def test_backoff_has_jitter() -> None:
    """A delay is somewhere between half of the longest and the longest, so that not everybody comes at once."""
    bounds: list[tuple[float, float]] = []

    def jitter(low: float, high: float) -> float:
        bounds.append((low, high))
        return low

    assert Backoff(timedelta(hours=1), clock=Clock(), jitter=jitter).failure() == FIRST_DELAY / 2
    assert bounds == [(FIRST_DELAY.total_seconds() / 2, FIRST_DELAY.total_seconds())]


def test_backoff_ends_with_its_budget() -> None:
    """The last delay ends with the budget, and after that there is none; contact begins a new one."""
    clock = Clock()
    backoff = Backoff(timedelta(seconds=10), clock=clock, jitter=longest)
    assert backoff.failure() == FIRST_DELAY
    clock.now += 9.875
    assert backoff.failure() == timedelta(seconds=0.125)
    clock.now += 0.2
    assert backoff.failure() is None
    backoff.contact()
    assert backoff.failure() == FIRST_DELAY


def test_backoff_without_a_budget() -> None:
    """A budget of nothing allows no second attempt."""
    assert Backoff(timedelta(0), clock=Clock()).failure() is None


def test_backoff_of_a_very_long_outage() -> None:
    """Thousands of attempts overflow nothing."""
    backoff = Backoff(timedelta(days=3650), clock=Clock(), jitter=longest)
    assert [backoff.failure() for _ in range(5000)][-1] == MAX_DELAY


def test_credentials_from_files_and_bytes(tmp_path: Path) -> None:
    """A path is read, bytes are taken, and a representation shows neither."""
    path = tmp_path / "ca.crt"
    path.write_bytes(b"from a file")
    credentials = Credentials.read(ca=path, cert=str(path), key=b"secret")
    assert (credentials.ca.content, credentials.cert.content, credentials.key.content) == (
        b"from a file",
        b"from a file",
        b"secret",
    )
    assert "secret" not in repr(credentials)


@pytest.mark.parametrize(
    "missing, what", [("ca", "CA certificate"), ("cert", "client certificate"), ("key", "client key")]
)
def test_credentials_that_are_not_there(tmp_path: Path, missing: str, what: str) -> None:
    """A missing file is named, and so is the option that names another."""
    files = {role: tmp_path / role for role in ("ca", "cert", "key")}
    for role, path in files.items():
        if role != missing:
            path.write_bytes(b"")
    with pytest.raises(ServerUnavailableError, match=f"there is no {what} {files[missing]}: .*--{missing}"):
        Credentials.read(**files)


def test_credentials_that_cannot_be_read(tmp_path: Path) -> None:
    """Any other failure says what the system says."""
    with pytest.raises(ServerUnavailableError, match=r"cannot read the CA certificate .*: Is a directory"):
        Credentials.read(ca=tmp_path, cert=b"", key=b"")


def job_that_ended(cause: Cause, *, code: int | None = None, signal: int | None = None) -> Job:
    """A job with this end."""
    return replace(started(accepted_job()), end=JobEnd(cause=cause, end_time=NOON, exit_code=code, signal=signal))


@pytest.mark.parametrize(
    "cause, code, signal, expected",
    [
        (Cause.EXITED, 0, None, 0),
        (Cause.EXITED, 3, None, 3),
        (Cause.EXITED, 137, None, 137),
        (Cause.SIGNALED, None, 9, 137),
        (Cause.TIMED_OUT, None, 15, 124),
        (Cause.TIMED_OUT, 0, None, 124),
        (Cause.STOPPED, None, 15, 143),
        (Cause.STOPPED, 7, None, 7),
        (Cause.STOPPED, 0, None, 143),
        (Cause.STOPPED, None, None, 143),
        (Cause.OOM_KILLED, None, 9, 137),
        (Cause.OOM_KILLED, 0, None, 137),
        (Cause.OUTPUT_LIMIT, None, None, 153),
        (Cause.LOST, None, None, 125),
        (Cause.SIGNALED, None, None, 125),
    ],
)
def test_exit_code(cause: Cause, code: int | None, signal: int | None, expected: int) -> None:
    """The code is the job's own where it ended by itself, and never 0 where it did not."""
    job = job_that_ended(cause, code=code, signal=signal)
    assert exit_code(job) == expected
    assert RunResult(job=job, output=b"", stdout=b"", stderr=b"").exit_code == expected


@pytest.mark.parametrize("cause", list(Cause))
def test_only_an_exit_is_a_success(cause: Cause) -> None:
    """Whatever the first process left, 0 means that the job exited by itself."""
    assert (exit_code(job_that_ended(cause, code=0)) == 0) == (cause is Cause.EXITED)


def test_a_job_that_runs_has_no_exit_code() -> None:
    """There is no number for an end that has not come."""
    with pytest.raises(ValueError, match="has not ended"):
        exit_code(started(accepted_job()))


def test_a_long_outage_is_told_once() -> None:
    """Not while it is as short as a restart, and anew after a contact."""
    clock = Clock()
    backoff = Backoff(timedelta(hours=1), clock=clock)
    for _ in range(2):
        backoff.failure()
        assert not backoff.grown_long()
        clock.now += LONG.total_seconds()
        backoff.failure()
        assert [backoff.grown_long(), backoff.grown_long()] == [True, False]
        backoff.contact()
        assert not backoff.grown_long()


async def test_an_outage_and_its_end_are_told_once() -> None:
    """However many calls and streams wait for the server, and anew for each outage."""
    told: list[str] = []
    connection = Connection(
        Address(host="nowhere", port=1),
        Credentials.read(ca=AUTHORITY.certificate, cert=ALICE.certificate, key=ALICE.key),
        Timeouts(),
        lambda: told.append("lost"),
        lambda: told.append("back"),
    )
    clock = Clock()
    waiting = [Backoff(timedelta(hours=1), clock=clock, jitter=lambda _low, _high: 0) for _ in range(3)]
    for _ in range(2):
        for after in (timedelta(0), LONG, LONG):
            clock.now += after.total_seconds()
            for backoff in waiting:
                await connection.pause(backoff, None)
        for backoff in waiting:
            connection.contact(backoff)
    assert told == ["lost", "back"] * 2
