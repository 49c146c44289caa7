"""How much of its output a job may keep, and what of an output is wanted."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from jobworker.core.errors import InvalidArgumentError
from jobworker.core.output import (
    MAX_OUTPUT_LIMIT,
    MIN_OUTPUT_LIMIT,
    OutputLimit,
    OutputPolicy,
    OverflowPolicy,
    Selection,
    Stream,
)

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
POLICY = OutputPolicy(default=OutputLimit(size=2**20, policy=OverflowPolicy.DROP), maximum=2**30)


@pytest.mark.parametrize("size", [None, MIN_OUTPUT_LIMIT, MAX_OUTPUT_LIMIT])
def test_a_limit_has_what_it_says(size: int | None) -> None:
    """Up to the largest offset there is."""
    assert OutputLimit(size=size).size == size


@pytest.mark.parametrize("size", [0, -1, MIN_OUTPUT_LIMIT - 1, MAX_OUTPUT_LIMIT + 1, True, "1M", 1e9])
def test_a_limit_that_cannot_be_is_refused(size: Any) -> None:  # noqa: ANN401 - what is no number, too
    """By the name of its field."""
    with pytest.raises(InvalidArgumentError) as refused:
        OutputLimit(size=size)
    assert refused.value.field == "spec.output_limit.bytes"


@pytest.mark.parametrize("name", ["KEEP_LAST", "keep-last", "keep_last"])
def test_a_policy_by_its_name(name: Any) -> None:  # noqa: ANN401 - not of the declared type
    """As the command line writes it, too; no other one."""
    assert OutputLimit(policy=name).policy is OverflowPolicy.KEEP_LAST
    with pytest.raises(InvalidArgumentError) as refused:
        OutputLimit(policy=name + "S")
    assert refused.value.field == "spec.output_limit.policy"


@pytest.mark.parametrize(
    "asked, given",
    [
        (OutputLimit(), POLICY.default),
        (OutputLimit(size=2**30), OutputLimit(size=2**30, policy=OverflowPolicy.DROP)),
        (OutputLimit(policy=OverflowPolicy.STOP), OutputLimit(size=2**20, policy=OverflowPolicy.STOP)),
    ],
)
def test_what_a_job_leaves_open_is_the_servers_to_say(asked: OutputLimit, given: OutputLimit) -> None:
    """Size and policy apart; a size up to the maximum is what it is."""
    assert POLICY.effective(asked) == given


def test_more_than_the_maximum_is_refused() -> None:
    """As it was asked for by a job, and as the server's own default."""
    with pytest.raises(InvalidArgumentError, match="above the maximum of 1GiB"):
        POLICY.effective(OutputLimit(size=2**30 + 1))
    with pytest.raises(InvalidArgumentError, match="above the maximum of 64KiB"):
        OutputPolicy(maximum=MIN_OUTPUT_LIMIT)


@pytest.mark.parametrize(
    "wanted, field",
    [
        ({"offset": -1}, "offset"),
        ({"tail": -1}, "tail"),
        ({"tail": 1, "offset": 1}, "tail"),
        ({"since": NOON, "until": NOON - timedelta(seconds=1)}, "until"),
        ({"offset": 1.5}, "offset"),
        ({"offset": True}, "offset"),
        ({"tail": "2"}, "tail"),
        ({"since": "10m"}, "since"),
        ({"since": NOON.replace(tzinfo=None)}, "since"),
        ({"until": NOON.replace(tzinfo=None)}, "until"),
        ({"until": 10}, "until"),
        ({"streams": 1}, "streams"),
        ({"streams": ["stdin"]}, "streams"),
        ({"times": "yes"}, "times"),
    ],
)
def test_a_selection_that_cannot_be_is_refused(wanted: dict[str, Any], field: str) -> None:
    """By the name of its field."""
    with pytest.raises(InvalidArgumentError) as refused:
        Selection(**wanted)
    assert refused.value.field == field


@pytest.mark.parametrize("streams", ["stderr", ["stderr"], {Stream.STDERR}, [Stream.STDERR, "STDERR"]])
def test_streams_by_name(streams: Any) -> None:  # noqa: ANN401 - not of the declared type
    """One alone, or several; given as a member or as its name."""
    assert Selection(streams=streams).streams == frozenset({Stream.STDERR})
