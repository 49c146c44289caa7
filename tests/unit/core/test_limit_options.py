"""Limits as people write them."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from jobworker.core.limit_options import OPTIONS, limits_of, shown
from jobworker.core.limits import IoLimit, Limits

# For every option what a person writes, what it means, and how it is shown.
SAID = {
    "cpus": ("1.5", 1.5, "1.5"),
    "cpu_weight": ("200", 200, "200"),
    "cpuset": ("0-3,6", "0-3,6", "0-3,6"),
    "memory": ("2G", 2 * 10**9, "2GB"),
    "memory_high": ("512MiB", 512 * 1024**2, "512MiB"),
    "swap": ("0", 0, "0B"),
    "oom_group": (False, False, "false"),
    "pids": ("200", 200, "200"),
    "io_read": ("10M", 10**7, "10MB/s"),
    "io_write": ("1MiB/s", 1024**2, "1MiB/s"),
    "io_read_ops": ("100", 100, "100/s"),
    "io_write_ops": ("7", 7, "7/s"),
    "io_device": ("/dev/vda", "/dev/vda", "/dev/vda"),
    "io_weight": ("50", 50, "50"),
}


def test_every_limit_can_be_said_and_is_shown() -> None:
    """No field of the limits is forgotten, and each option means and shows what is written here."""
    assert set(SAID) == set(OPTIONS)
    assert {option.limit for option in OPTIONS.values()} == {field.name for field in fields(Limits)}
    rates = {option.rate for option in OPTIONS.values() if option.rate}
    assert rates == {field.name for field in fields(IoLimit)}
    meant = {name: OPTIONS[name].parse(text) for name, (text, _, _) in SAID.items()}
    assert meant == {name: value for name, (_, value, _) in SAID.items()}
    assert dict(shown(limits_of(meant))) == {name: text for name, (_, _, text) in SAID.items()}


def test_toml_may_say_numbers_in_its_own_types() -> None:
    """Numbers need no quotes."""
    said = {"cpus": 2, "memory": 4096, "pids": 9, "io_read": 10, "oom_group": True}
    parsed = {name: OPTIONS[name].parse(value) for name, value in said.items()}
    assert limits_of(parsed) == Limits(
        cpus=2, memory=4096, pids=9, oom_group=True, io=(IoLimit(read_bytes_per_second=10),)
    )


@pytest.mark.parametrize(
    "name, text, right",
    [
        ("cpus", "many", "write one such as 2 or 1.5"),
        ("cpus", True, "write one such as 2 or 1.5"),
        ("cpus", "1_0", "write one such as 2 or 1.5"),
        ("memory", "2x", "write one such as 50GiB"),
        ("memory", -1, "write one such as 200"),
        ("pids", "1.5", "write one such as 200"),
        ("pids", "9" * 30, "write one such as 200"),
        ("io_read", "10M/h", "write one such as 50GiB"),
        ("cpuset", "", "no text"),
        ("cpuset", 3, "no text"),
        ("oom_group", "yes", "neither true nor false"),
    ],
)
def test_a_wrong_value_is_told_what_would_be_right(name: str, text: Any, right: str) -> None:  # noqa: ANN401 - what TOML has
    """The text that is wrong is in the error, and an example of a right one."""
    with pytest.raises(ValueError, match=right):
        OPTIONS[name].parse(text)


def test_a_disk_needs_a_rate() -> None:
    """To name a disk and say nothing of it is a slip."""
    with pytest.raises(ValueError, match="io_device says which disk"):
        limits_of({"io_device": "/dev/vda", "pids": 5})


def test_what_is_not_said_is_not_limited() -> None:
    """None is not said, and nothing is shown of it."""
    assert limits_of(dict.fromkeys(OPTIONS)) == Limits()
    assert list(shown(Limits())) == []


def test_every_disk_is_shown() -> None:
    """Disks follow each other, each with what is limited of it."""
    limits = Limits(io=(IoLimit(read_bytes_per_second=5), IoLimit(device="/srv", write_operations_per_second=6)))
    assert list(shown(limits)) == [("io_read", "5B/s"), ("io_write_ops", "6/s"), ("io_device", "/srv")]
