"""What limits may be asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest

from jobworker.core.errors import InvalidArgumentError
from jobworker.core.limits import MAX_DEVICES, IoLimit, Limits, cpu_ranges


@pytest.mark.parametrize(
    "field, values",
    [
        ("cpus", {"cpus": 0}),
        ("cpus", {"cpus": 0.009}),
        ("cpus", {"cpus": float("nan")}),
        ("cpus", {"cpus": float("inf")}),
        ("cpu_weight", {"cpu_weight": 0}),
        ("cpu_weight", {"cpu_weight": 10_001}),
        ("memory", {"memory": 0}),
        ("memory", {"memory": 2**63}),
        ("memory_high", {"memory_high": -1}),
        ("swap", {"swap": -1}),
        ("pids", {"pids": 0}),
        ("pids", {"pids": 2**22 + 1}),
        ("io_weight", {"io_weight": 10_001}),
        ("io", {"io": (IoLimit(device="/srv"), IoLimit(device="/srv"))}),
        ("io", {"io": (IoLimit(), IoLimit())}),
        ("io", {"io": tuple(IoLimit(device=f"/{number}") for number in range(MAX_DEVICES + 1))}),
    ],
)
def test_what_the_kernel_cannot_express_is_refused(field: str, values: dict[str, Any]) -> None:
    """With the name of the limit, when the limits are built."""
    with pytest.raises(InvalidArgumentError) as caught:
        Limits(**values)
    assert caught.value.field == f"limits.{field}"


@pytest.mark.parametrize(
    "values",
    [
        {"device": "vda"},
        {"device": "/" + 255 * "x"},
        {"device": "/a\0"},
        {"read_bytes_per_second": 0},
        {"write_operations_per_second": 2**32 - 1},
    ],
)
def test_what_no_disk_can_be_limited_to_is_refused(values: dict[str, Any]) -> None:
    """A rate of nothing, a rate that the kernel takes for none, a disk that is not named by an absolute path."""
    with pytest.raises(InvalidArgumentError, match=f"^limits.io.{next(iter(values))}: "):
        IoLimit(**values)


@pytest.mark.parametrize(
    "field, build",
    [
        ("cpus", lambda: Limits(cpus=cast("Any", "2"))),
        ("cpus", lambda: Limits(cpus=True)),
        ("memory", lambda: Limits(memory=cast("Any", "2G"))),
        ("memory_high", lambda: Limits(memory_high=cast("Any", 1e9))),
        ("pids", lambda: Limits(pids=cast("Any", [5]))),
        ("cpuset", lambda: Limits(cpuset=cast("Any", 3))),
        ("oom_group", lambda: Limits(oom_group=cast("Any", "yes"))),
        ("io", lambda: Limits(io=cast("Any", IoLimit()))),
        ("io", lambda: Limits(io=cast("Any", ({"device": "/srv"},)))),
        ("io.device", lambda: IoLimit(device=cast("Any", 8))),
        ("io.read_bytes_per_second", lambda: IoLimit(read_bytes_per_second=cast("Any", "10M"))),
        ("io.write_operations_per_second", lambda: IoLimit(write_operations_per_second=cast("Any", 1.5))),
    ],
)
def test_what_is_of_another_type_is_refused(field: str, build: Callable[[], object]) -> None:
    """As all else that is wrong: with the name of the limit, and the type that is wanted."""
    with pytest.raises(InvalidArgumentError, match="it has to be of type ") as caught:
        build()
    assert caught.value.field == f"limits.{field}"


@pytest.mark.parametrize("cpuset", ["", "1,", "a", "-1", "1-", "3-1", "1 ,2", "٣", "0-8192", "1--2"])
def test_a_list_of_cpus_is_read_strictly(cpuset: str) -> None:
    """What the kernel would read differently, or not at all, is refused."""
    with pytest.raises(InvalidArgumentError, match=r"^limits.cpuset: "):
        Limits(cpuset=cpuset)


def test_the_least_and_the_most_are_possible() -> None:
    """Bounds are within; so is a CPU that is named twice."""
    Limits(cpus=0.01, cpu_weight=1, memory=1, swap=0, pids=1, io_weight=10_000)
    Limits(cpus=8192, memory=2**63 - 1, pids=2**22, io=(IoLimit(read_operations_per_second=2**32 - 2),))
    assert list(cpu_ranges("0-3,6,6-8191")) == [range(4), range(6, 7), range(6, 8192)]
