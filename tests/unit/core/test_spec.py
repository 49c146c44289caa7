"""A spec takes what its callers mean, and refuses by the name of the field what nobody can mean."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from jobworker.core.errors import InvalidArgumentError
from jobworker.core.output import OutputMode
from jobworker.core.spec import ChildPolicy, JobSpec


@pytest.mark.parametrize(
    "field, given, meant",
    [
        ("argv", ["ls", "-l"], ("ls", "-l")),
        ("cwd", Path("/tmp"), "/tmp"),  # noqa: S108 - a path as any other
        ("time_limit", 1, timedelta(seconds=1)),
        ("time_limit", 0.5, timedelta(seconds=0.5)),
        ("child_policy", "wait", ChildPolicy.WAIT),
        ("output", "split", OutputMode.SPLIT),
        ("output", "SPLIT", OutputMode.SPLIT),
    ],
)
def test_what_is_meant_is_taken(field: str, given: Any, meant: object) -> None:  # noqa: ANN401 - of any type
    """Seconds, paths and the names of choices; when a spec is built, and when it is changed."""
    fields: dict[str, Any] = {"argv": ("true",), field: given}
    value = getattr(JobSpec(**fields), field)
    assert (value, type(value)) == (meant, type(meant))
    assert getattr(replace(JobSpec(argv=("true",)), **{field: given}), field) == meant


@pytest.mark.parametrize(
    "field, given, path",
    [
        ("argv", "ls -l", "spec.argv"),
        ("argv", 1, "spec.argv"),
        ("argv", ["ls", 1], "spec.argv[1]"),
        ("argv", [b"ls"], "spec.argv[0]"),
        ("argv", [None], "spec.argv[0]"),
        ("env", {"A": 1}, "spec.env['A']"),
        ("env", {1: "A"}, "spec.env"),
        ("env", ["A=1"], "spec.env"),
        ("env", None, "spec.env"),
        ("cwd", b"/tmp", "spec.cwd"),
        ("cwd", Path("tmp"), "spec.cwd"),
        ("cwd", None, "spec.cwd"),
        ("name", 1, "spec.name"),
        ("labels", {"a": 1}, "spec.labels['a']"),
        ("labels", {1: "a"}, "spec.labels"),
        ("labels", "a=b", "spec.labels"),
        ("time_limit", "1m", "spec.time_limit"),
        ("time_limit", True, "spec.time_limit"),
        ("time_limit", float("nan"), "spec.time_limit"),
        ("time_limit", float("inf"), "spec.time_limit"),
        ("time_limit", 0, "spec.time_limit"),
        ("limits", {"cpus": 1}, "spec.limits"),
        ("limits", None, "spec.limits"),
        ("child_policy", "stay", "spec.child_policy"),
        ("output", "both", "spec.output"),
        ("output", True, "spec.output"),
        ("output_limit", 100_000, "spec.output_limit"),
        ("output_limit", "1M", "spec.output_limit"),
    ],
)
def test_what_cannot_be_is_refused(field: str, given: Any, path: str) -> None:  # noqa: ANN401 - of any type
    """By the path of the field."""
    fields: dict[str, Any] = {"argv": ("true",), field: given}
    with pytest.raises(InvalidArgumentError) as refused:
        JobSpec(**fields)
    assert refused.value.field == path


@pytest.mark.parametrize(
    "field, given, hint",
    [
        ("argv", "ls -l", "['ls', '-l']"),
        ("output", "both", "COMBINED, SPLIT"),
        ("output_limit", "1M", "OutputLimit(size=..., policy=...)"),
        ("time_limit", "1m", "a timedelta or a number of seconds"),
    ],
)
def test_a_refusal_says_what_would_be_right(field: str, given: str, hint: str) -> None:
    """For what people try first."""
    fields: dict[str, Any] = {"argv": ("true",), field: given}
    with pytest.raises(InvalidArgumentError) as refused:
        JobSpec(**fields)
    assert hint in refused.value.problem
