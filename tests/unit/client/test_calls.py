"""Calls are repeated where that is safe, and only there."""

from __future__ import annotations

import asyncio
import uuid
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any, cast

import grpc
import pytest

from jobworker.api.convert import job_message
from jobworker.api.v1 import jobs_pb2 as pb
from jobworker.client import JobFailedError
from jobworker.client.backoff import Backoff
from jobworker.core.errors import (
    InvalidArgumentError,
    JobEndedError,
    JobNotFoundError,
    JobworkerError,
    LimitAboveMaximumError,
    LimitNotEnforceableError,
    PauseNotSupportedError,
    QuotaExceededError,
    ServerUnavailableError,
)
from jobworker.core.job import JobEnd
from jobworker.core.limits import Limits
from jobworker.core.spec import JobSpec
from jobworker.core.state import Cause
from jobworker.core.usage import Usage
from tests.support.jobs import NOON
from tests.support.polling import until
from tests.unit.client.scripted import (
    ENDED,
    RUNNING,
    Context,
    Step,
    answer,
    client_of,
    fail,
    hang,
    last,
    piece,
    refuse,
    scripted_server,
    stream,
)

LOST_REPLIES = pytest.mark.parametrize(
    "lost",
    [
        fail(grpc.StatusCode.UNAVAILABLE, "Socket closed"),
        fail(grpc.StatusCode.CANCELLED),
        refuse(ServerUnavailableError("the server is shutting down")),
    ],
    ids=["unavailable", "cancelled by the server", "shutting down"],
)


@LOST_REPLIES
async def test_a_start_is_repeated_with_the_same_request_id(lost: Step) -> None:
    """A start whose reply was lost is sent again with the request id of the first, a random UUID."""
    async with scripted_server(lost, lost, answer()) as script, client_of(script) as client:
        assert await client.start(["true"]) == RUNNING
    ids = {request.request_id for request in script.requests}
    assert len(script.requests) == 3
    assert len(ids) == 1
    assert uuid.UUID(ids.pop()).version == 4


@LOST_REPLIES
async def test_a_pause_a_resume_and_an_update_are_repeated(lost: Step) -> None:
    """Doing them twice is the same as once, so a lost reply is asked for again."""
    async with scripted_server(*(lost, answer()) * 3) as script, client_of(script) as client:
        assert await client.pause(RUNNING.id) == RUNNING
        assert await client.resume(RUNNING.id) == RUNNING
        assert await client.update(RUNNING.id, Limits(pids=5)) == RUNNING
    assert len(script.requests) == 6


async def test_an_update_says_what_changes() -> None:
    """What is set and what is to be given back is in the mask, under the wire's names."""
    async with scripted_server(answer()) as script, client_of(script) as client:
        await client.update(RUNNING.id, Limits(memory=4096, oom_group=False), clear=["swap"])
    (request,) = script.requests
    assert (request.job.id, request.job.limits.memory_bytes) == (RUNNING.id, 4096)
    assert list(request.update_mask.paths) == ["limits.memory_bytes", "limits.oom_group", "limits.swap_bytes"]


async def test_usages_go_through_all_pages() -> None:
    """All running jobs come, however small the pages are."""
    pages = [
        pb.ListUsagesResponse(
            usages=[pb.JobUsage(job=job_message(RUNNING), usage=pb.Usage(wall_seconds=number))], next_page_token=token
        )
        for number, token in ((1, "a"), (2, ""))
    ]
    async with scripted_server(*map(answer, pages)) as script, client_of(script) as client:
        found = [one async for one in client.usages(owner="ada", page_size=1)]
    assert found == [(RUNNING, Usage(wall_seconds=1)), (RUNNING, Usage(wall_seconds=2))]
    assert {(request.owner, request.page_size) for request in script.requests} == {("ada", 1)}
    assert [request.page_token for request in script.requests][1] == "a"


@pytest.mark.parametrize(
    "error",
    [
        LimitAboveMaximumError("memory", "5"),
        LimitNotEnforceableError("swap", "no swap"),
        PauseNotSupportedError(),
        JobEndedError("x", action="pause", state="LOST"),
    ],
)
async def test_refusals_have_their_types(error: JobworkerError) -> None:
    """What a caller can react to arrives as it was raised, with the names of this side."""
    async with scripted_server(refuse(error)) as script, client_of(script) as client:
        with pytest.raises(type(error)) as refused:
            await client.update(RUNNING.id, Limits(pids=5))
    assert vars(refused.value) == vars(error)


async def test_each_start_has_its_own_request_id() -> None:
    """Two starts are two jobs; a request id that the caller names is used."""
    async with scripted_server(answer(), answer(), answer()) as script, client_of(script) as client:
        for request_id in (None, None, "mine"):
            await client.start(["true"], request_id=request_id)
    first, second, third = (request.request_id for request in script.requests)
    assert first != second
    assert third == "mine"


@LOST_REPLIES
async def test_a_signal_is_never_repeated(lost: Step) -> None:
    """A signal whose reply was lost may have been sent, so it is not sent again."""
    async with scripted_server(lost) as script, client_of(script) as client:
        with pytest.raises(ServerUnavailableError):
            await client.signal(ENDED.id, 1)
    assert len(script.requests) == 1


async def test_a_wait_survives() -> None:
    """A wait whose connection is lost waits on."""
    steps = fail(grpc.StatusCode.UNAVAILABLE), fail(grpc.StatusCode.CANCELLED), answer(job_message(ENDED))
    async with scripted_server(*steps) as script, client_of(script) as client:
        assert await client.wait(ENDED.id) == ENDED


async def test_a_wait_outlives_any_number_of_outages(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time that a server may stay away begins anew with each, though it says nothing of a wait between them."""
    now = 0.0
    contacts = 0

    class Heard(Backoff):
        def contact(self) -> None:
            nonlocal contacts
            contacts += 1
            super().contact()

    async def lost_later(context: Context) -> object:
        nonlocal now
        before = contacts
        with suppress(TimeoutError):  # the client has to give up then
            async with asyncio.timeout(1):
                await until(lambda: contacts > before)
        now += 200
        return await lost(context)

    monkeypatch.setattr("jobworker.client.connection.SETTLED", timedelta(milliseconds=5))
    monkeypatch.setattr("jobworker.client.connection.Backoff", partial(Heard, clock=lambda: now))
    lost = fail(grpc.StatusCode.UNAVAILABLE, "Socket closed")
    async with (
        scripted_server(lost, lost_later, lost_later, lost_later, answer(job_message(ENDED))) as script,
        client_of(script, reconnect=timedelta(minutes=5)) as client,
    ):
        assert await client.wait(ENDED.id) == ENDED


async def test_an_answer_after_an_outage_is_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever was told that the server is away is told that it is back, when it has answered."""
    monkeypatch.setattr("jobworker.client.backoff.LONG", timedelta(0))
    told: list[str] = []
    lost = fail(grpc.StatusCode.UNAVAILABLE, "Socket closed")
    async with (
        scripted_server(lost, lost, answer(), answer()) as script,
        client_of(script, on_outage=lambda: told.append("away"), on_recovery=lambda: told.append("back")) as client,
    ):
        await client.wait(RUNNING.id)
        assert told == ["away", "back"]
        await client.wait(RUNNING.id)
    assert told == ["away", "back"]


async def test_a_repeated_remove_may_find_nothing() -> None:
    """A job that is gone after a lost reply was removed by the attempt before; else it is an error."""
    gone = refuse(JobNotFoundError(ENDED.id))
    async with scripted_server(fail(grpc.StatusCode.UNAVAILABLE), gone, gone) as script, client_of(script) as client:
        await client.remove(ENDED.id)
        with pytest.raises(JobNotFoundError):
            await client.remove(ENDED.id)


async def test_a_refusal_is_not_repeated() -> None:
    """An answer that is no outage is raised as the error that it is."""
    refusal = refuse(QuotaExceededError("running jobs", 3))
    async with scripted_server(refusal) as script, client_of(script) as client:
        with pytest.raises(QuotaExceededError) as raised:
            await client.start(["true"])
    assert raised.value.bound == 3
    assert len(script.requests) == 1


async def test_no_answer_in_time_is_an_error() -> None:
    """A call that the server does not answer in time is not repeated: it may be at work."""
    slow = fail(grpc.StatusCode.DEADLINE_EXCEEDED)
    async with scripted_server(slow) as script, client_of(script) as client:
        with pytest.raises(ServerUnavailableError, match="did not answer within 30 s"):
            await client.get(ENDED.id)


async def test_a_cancel_of_the_caller_is_no_outage() -> None:
    """A call that its own caller cancels is cancelled on the server, and not made again."""
    entered, left = asyncio.Event(), asyncio.Event()
    async with scripted_server(hang(entered, left)) as script, client_of(script) as client:
        waiting = asyncio.ensure_future(client.wait(ENDED.id))
        await entered.wait()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await left.wait()


async def test_a_budget_that_is_spent_says_so() -> None:
    """With no time to reconnect, the first outage raises what the server said."""
    lost = refuse(ServerUnavailableError("the server is shutting down"))
    async with scripted_server(lost) as script, client_of(script, reconnect=timedelta(0)) as client:
        with pytest.raises(ServerUnavailableError, match="the server is shutting down"):
            await client.start(["true"])


async def test_a_text_is_no_command() -> None:
    """A command in one string is refused with the list that was meant, before anything is sent."""
    async with scripted_server() as script, client_of(script) as client:
        with pytest.raises(InvalidArgumentError, match=r"\['ls', '-l'\]"):
            await client.start("ls -l")


async def test_only_utf8_is_sent() -> None:
    """Arguments that are no UTF-8 are refused here, because gRPC cannot carry them."""
    async with scripted_server() as script, client_of(script) as client:
        with pytest.raises(InvalidArgumentError, match="UTF-8"):
            await client.start(["echo", "\udc80"])


async def test_what_the_wire_has_no_room_for() -> None:
    """Values that no server could take are refused here, with the name of what is wrong."""
    async with scripted_server() as script, client_of(script) as client:
        with pytest.raises(InvalidArgumentError, match="offset"):
            client.stream(ENDED.id, 2**63)
        with pytest.raises(InvalidArgumentError, match="offset"):
            client.stream(ENDED.id, -1)
        with pytest.raises(InvalidArgumentError, match="signal"):
            await client.signal(ENDED.id, 2**40)
        with pytest.raises(InvalidArgumentError, match="signal"):
            await client.stop(ENDED.id, signal=0)
        with pytest.raises(InvalidArgumentError, match="grace"):
            await client.stop(ENDED.id, grace=timedelta.max)


async def test_a_filter_is_a_filter() -> None:
    """What is none is refused before anything is sent, and not at some attribute that it lacks."""
    async with scripted_server() as script, client_of(script) as client:
        with pytest.raises(InvalidArgumentError, match="is no JobFilter"):
            await anext(client.list(cast("Any", {"owner": "alice"})))
        assert not script.requests


async def test_fields_complete_a_spec() -> None:
    """A spec is sent as it is, and fields that are given beside it replace its own."""
    spec = JobSpec(argv=("true",), cwd="/tmp", name="a")  # noqa: S108 -- nothing is written there
    async with scripted_server(answer()) as script, client_of(script) as client:
        await client.start(spec, name="b")
    assert (script.requests[0].spec.cwd, script.requests[0].spec.name) == ("/tmp", "b")  # noqa: S108 -- as above


async def test_run_gives_all_of_it() -> None:
    """Run starts, collects the output, and gives the code and the bytes."""
    steps = answer(), stream([piece(0, b"ab"), piece(2, b"\xff\0"), last(4)])
    async with scripted_server(*steps) as script, client_of(script) as client:
        result = await client.run(["true"], check=True)
    assert (result.exit_code, result.output, result.job) == (0, b"ab\xff\0", ENDED)


async def test_run_with_check_raises() -> None:
    """With check, a job that fails is an error that carries the result."""
    failed = replace(ENDED, end=JobEnd(cause=Cause.EXITED, end_time=NOON, exit_code=3))
    steps = answer(), stream([piece(0, b"no"), last(2, failed)])
    async with scripted_server(*steps) as script, client_of(script) as client:
        with pytest.raises(JobFailedError, match="code 3") as raised:
            await client.run(["false"], check=True)
    assert raised.value.result.output == b"no"


async def test_run_in_time_after_all() -> None:
    """A job that ends by itself at the moment of its timeout has ended by itself."""
    entered = asyncio.Event()
    steps = (
        answer(),
        stream([piece(0, b"a")], hang(entered)),
        refuse(JobEndedError(ENDED.id, action="stop", state="FINISHED")),
        stream([piece(1, b"b"), last(2)]),
    )
    async with scripted_server(*steps) as script, client_of(script) as client:
        result = await client.run(["true"], timeout=timedelta(milliseconds=300))
    assert result.output == b"ab"
    assert script.requests[2].grace.ToTimedelta() == timedelta(0)


@pytest.mark.parametrize("wrong", ["1s", -1, True, float("nan")])
async def test_a_timeout_that_cannot_be_starts_nothing(wrong: Any) -> None:  # noqa: ANN401 - of any type
    """It is refused before anything is sent, by its name."""
    async with scripted_server() as script, client_of(script) as client:
        with pytest.raises(InvalidArgumentError) as refused:
            await client.run(["true"], timeout=wrong)
    assert (refused.value.field, script.requests) == ("timeout", [])


@pytest.mark.parametrize("grace", [5, 5.0, timedelta(seconds=5)])
async def test_a_stop_with_a_grace_in_seconds(grace: timedelta | float) -> None:
    """A number is one of seconds."""
    async with scripted_server(answer()) as script, client_of(script) as client:
        await client.stop(RUNNING.id, grace=grace)
    assert script.requests[0].grace.ToTimedelta() == timedelta(seconds=5)


async def test_a_stop_that_cannot_be_sends_nothing() -> None:
    """It is refused before anything is sent, by its name."""
    wrong: Any = "5s"
    async with scripted_server() as script, client_of(script) as client:
        for field in ("grace", "signal"):
            with pytest.raises(InvalidArgumentError) as refused:
                await client.stop(RUNNING.id, **{field: wrong})
            assert refused.value.field == field
    assert script.requests == []


@pytest.mark.parametrize("keyword", ["tail_lines", "bogus"])
async def test_unknown_keywords_are_refused(keyword: str) -> None:
    """By their names, by all calls that take keywords, before anything is sent."""
    unknown: Any = {keyword: 2}
    async with scripted_server() as script, client_of(script) as client:
        with pytest.raises(TypeError, match=rf"stream\(\) got .* '{keyword}'"):
            client.stream(RUNNING.id, **unknown)
        for call in (client.start, client.run):
            with pytest.raises(TypeError, match=keyword):
                await call(["true"], **unknown)
    assert script.requests == []
