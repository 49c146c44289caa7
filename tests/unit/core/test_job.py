"""How a job is stopped: a grace in any form, and signals that there are."""

from __future__ import annotations

import signal
from datetime import timedelta
from typing import Any

import pytest

from jobworker.core.errors import InvalidArgumentError
from jobworker.core.job import StopRequest
from tests.support.jobs import NOON


def test_a_grace_in_seconds() -> None:
    """A number is one of seconds."""
    stop: Any = StopRequest
    assert stop(requested_by="alice", request_time=NOON, grace=5).grace == timedelta(seconds=5)


@pytest.mark.parametrize(
    "field, given",
    [
        ("grace", "5s"),
        ("grace", True),
        ("grace", -1),
        ("grace", timedelta(days=2)),
        ("signal", "TERM"),
        ("signal", True),
        ("signal", 15.0),
        ("signal", [15]),
        ("signal", 0),
    ],
)
def test_a_stop_that_cannot_be_is_refused(field: str, given: object) -> None:
    """By the name of its field."""
    fields: dict[str, Any] = {field: given}
    with pytest.raises(InvalidArgumentError) as refused:
        StopRequest(requested_by="alice", request_time=NOON, **fields)
    assert refused.value.field == field


def test_a_signal_by_its_member() -> None:
    """As Python names them."""
    assert StopRequest(requested_by="alice", request_time=NOON, signal=signal.SIGINT).signal == 2
