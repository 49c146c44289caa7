"""A filter says by its field what is wrong with it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from jobworker.core.errors import InvalidArgumentError
from jobworker.core.query import JobFilter
from jobworker.core.state import JobState
from tests.support.jobs import NOON


@pytest.mark.parametrize(
    "conditions, field",
    [
        ({"states": 1}, "states"),
        ({"states": ["QUEUED"]}, "states"),
        ({"owner": 7}, "owner"),
        ({"labels": ["team=db"]}, "labels"),
        ({"labels": {"team": 1}}, "labels['team']"),
        ({"created_after": "2h"}, "created_after"),
        ({"created_after": timedelta(hours=2)}, "created_after"),
        ({"created_before": NOON.replace(tzinfo=None)}, "created_before"),
        ({"id_prefix": 1234}, "id_prefix"),
        ({"id_prefix": "abc"}, "id_prefix"),
        ({"id_prefix": "nothex"}, "id_prefix"),
        ({"id_prefix": "a" * 37}, "id_prefix"),
    ],
)
def test_a_condition_that_cannot_be_is_refused(conditions: dict[str, Any], field: str) -> None:
    """By the name of its field."""
    with pytest.raises(InvalidArgumentError) as refused:
        JobFilter(**conditions)
    assert refused.value.field == field


@pytest.mark.parametrize("states", ["running", ["running"], {JobState.RUNNING}, [JobState.RUNNING, "RUNNING"]])
def test_states_by_name(states: Any) -> None:  # noqa: ANN401 - not of the declared type
    """One alone, or several; given as a member or as its name."""
    assert JobFilter(states=states).states == frozenset({JobState.RUNNING})
