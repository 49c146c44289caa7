"""The state table is complete, and the values of the vocabulary refuse what cannot be."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from jobworker.core.errors import InvalidArgumentError
from jobworker.core.job import Job, JobEnd, StopRequest, parse_signal, signal_name
from jobworker.core.spec import MAX_STRING_BYTES, JobSpec
from jobworker.core.state import TRANSITIONS, Cause, JobState

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def test_every_state_has_its_row_and_every_cause_leads_somewhere() -> None:
    """The table names each state once; from RUNNING each cause leads to an ended one, and nothing leads back."""
    assert TRANSITIONS.keys() == set(JobState)
    assert TRANSITIONS[JobState.RUNNING].keys() == set(Cause)
    assert {state for state in JobState if not state.ended} == {JobState.RUNNING}
    for cause in Cause:
        assert cause.state.ended
    assert {cause.state for cause in Cause} == {state for state in JobState if state.ended}


@pytest.mark.parametrize("cause", list(Cause))
def test_the_state_of_a_job_follows_from_its_end(cause: Cause) -> None:
    """RUNNING without one, else what the table says; only a stop makes STOPPED and only a loss LOST."""
    job = Job(id="x", owner="ada", spec=JobSpec(argv=("true",)), create_time=NOW)
    assert job.state is JobState.RUNNING
    job = Job(
        id="x",
        owner="ada",
        spec=JobSpec(argv=("true",)),
        create_time=NOW,
        end=JobEnd(cause=cause, end_time=NOW),
    )
    expected = {Cause.STOPPED: JobState.STOPPED, Cause.LOST: JobState.LOST}.get(cause, JobState.FINISHED)
    assert job.state is expected


@pytest.mark.parametrize(
    "fields, where",
    [
        ({"argv": ()}, "spec.argv"),
        ({"argv": ("",)}, "spec.argv[0]"),
        ({"argv": ("a", "b\0")}, "spec.argv[1]"),
        ({"argv": ("a", "x" * (MAX_STRING_BYTES + 1))}, "spec.argv[1]"),
        ({"argv": ("\ud800",)}, "spec.argv[0]"),
        ({"argv": ("a",), "env": {"": "x"}}, "spec.env"),
        ({"argv": ("a",), "env": {"A=B": "x"}}, "spec.env"),
        ({"argv": ("a",), "env": {"A": "\0"}}, "spec.env['A']"),
        ({"argv": ("a",), "cwd": "tmp"}, "spec.cwd"),
        ({"argv": ("a",), "cwd": "/" + "x" * 4095}, "spec.cwd"),
        ({"argv": ("a",), "name": ""}, "spec.name"),
        ({"argv": ("a",), "name": "x" * 129}, "spec.name"),
        ({"argv": ("a",), "name": "a\nb"}, "spec.name"),
        ({"argv": ("a",), "labels": {"A": "x"}}, "spec.labels"),
        ({"argv": ("a",), "labels": {"a": "x" * 129}}, "spec.labels['a']"),
        ({"argv": ("a",), "labels": {f"k{n}": "" for n in range(33)}}, "spec.labels"),
        ({"argv": ("a",), "time_limit": timedelta(0)}, "spec.time_limit"),
        ({"argv": ("a",), "time_limit": timedelta(days=3651)}, "spec.time_limit"),
    ],
)
def test_a_spec_that_cannot_be_is_refused_by_the_name_of_its_field(fields: dict[str, object], where: str) -> None:
    """The error says which field and what would be right."""
    with pytest.raises(InvalidArgumentError) as error:
        JobSpec(**fields)  # pyright: ignore[reportArgumentType] - each of its own type
    assert error.value.field == where


def test_a_spec_does_not_change_with_what_it_was_made_of() -> None:
    """It keeps copies, and they are read-only."""
    argv, env = ["a"], {"A": "x"}
    spec = JobSpec(argv=argv, env=env)  # pyright: ignore[reportArgumentType] - as an untyped caller may
    argv.append("b")
    env["B"] = "y"
    assert spec == JobSpec(argv=("a",), env={"A": "x"})
    with pytest.raises(TypeError):
        spec.env["C"] = "z"  # type: ignore[index] - that is what must not work
    assert spec.command_bytes == len("a\0A=x\0")


def test_a_stop_that_cannot_be_is_refused() -> None:
    """A signal there is, and a grace from nothing to a day."""
    for signal in (0, -1, 65):
        with pytest.raises(InvalidArgumentError):
            StopRequest(requested_by="ada", request_time=NOW, signal=signal)
    for grace in (timedelta(microseconds=-1), timedelta(days=1, microseconds=1)):
        with pytest.raises(InvalidArgumentError):
            StopRequest(requested_by="ada", request_time=NOW, grace=grace)


@pytest.mark.parametrize("text, number", [("TERM", 15), ("sigterm", 15), ("9", 9), ("SIGRTMIN", 34), ("64", 64)])
def test_a_signal_may_be_given_by_name_or_number(text: str, number: int) -> None:
    """As people write them."""
    assert parse_signal(text) == number
    assert parse_signal(signal_name(number)) == number


@pytest.mark.parametrize("text", ["", "0", "65", "-9", "SIGNOTHING", "9.0", "\u0669"])
def test_what_is_no_signal_is_refused(text: str) -> None:
    """With an error that says what one would be."""
    with pytest.raises(InvalidArgumentError):
        parse_signal(text)
