"""Limits as the files of a cgroup take them, and the disks under files."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from jobworker.core.errors import LimitNotEnforceableError
from jobworker.core.limits import IoLimit, Limits
from jobworker.linux import disk, limits
from jobworker.linux.disk import find_disk
from jobworker.linux.limits import FILES, limit_of, writes
from jobworker.linux.mounts import Mount

ALL = Limits(
    cpus=1.5,
    cpu_weight=7,
    cpuset="0-1",
    memory=2**30,
    memory_high=2**29,
    swap=0,
    oom_group=True,
    pids=20,
    io=(IoLimit(device="/a", write_bytes_per_second=10), IoLimit(read_bytes_per_second=5)),
    io_weight=50,
)


@pytest.fixture(autouse=True)
def _disks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two disks, whatever this machine has."""

    def find(path: str) -> str:
        return "8:0" if path == "/a" else "8:16"

    monkeypatch.setattr(limits, "find_disk", find)


def test_each_limit_is_a_write() -> None:
    """In the words of the kernel's file; a rate that is not set is unlimited."""
    assert writes(ALL, cwd="/work") == [
        ("cpu.max", "150000 100000"),
        ("cpu.weight", "7"),
        ("cpuset.cpus", "0-1"),
        ("memory.max", "1073741824"),
        ("memory.high", "536870912"),
        ("memory.swap.max", "0"),
        ("memory.oom.group", "1"),
        ("pids.max", "20"),
        ("io.max", "8:0 rbps=max wbps=10 riops=max wiops=max"),
        ("io.max", "8:16 rbps=5 wbps=max riops=max wiops=max"),
        ("io.weight", "default 50"),
    ]


def test_no_limit_is_no_write_and_one_that_is_gone_is_taken_back() -> None:
    """Each by what the file holds in a new group."""
    assert writes(Limits(), cwd="/") == []
    taken_back = [(file, unlimited) for name, (file, unlimited) in FILES.items() if name != "io"]
    taken_back += [("io.max", f"{disk} rbps=max wbps=max riops=max wiops=max") for disk in ("8:0", "8:16")]
    assert sorted(writes(Limits(), cwd="/", before=ALL)) == sorted(taken_back)


def test_an_update_writes_only_limits_that_change() -> None:
    """The kernel acts on each write, also of a value that stays."""
    assert writes(ALL, cwd="/", before=ALL) == []
    assert writes(replace(ALL, pids=30), cwd="/", before=ALL) == [("pids.max", "30")]


def test_limits_of_one_disk_by_two_names_are_refused() -> None:
    """The second would undo the first; a disk that has another name now keeps its limit."""
    twice = Limits(io=(IoLimit(device="/b", read_bytes_per_second=1), IoLimit(device="/c", read_bytes_per_second=2)))
    with pytest.raises(LimitNotEnforceableError, match=r"same disk \(8:16\)"):
        writes(twice, cwd="/")
    renamed = Limits(io=(IoLimit(device="/b", read_bytes_per_second=1),))
    assert writes(renamed, cwd="/", before=Limits(io=(IoLimit(device="/c"),))) == [
        ("io.max", "8:16 rbps=1 wbps=max riops=max wiops=max")
    ]


def test_a_file_tells_its_limit() -> None:
    """For who is told that the kernel refuses it."""
    assert [limit_of(file) for file, _ in FILES.values()] == list(FILES)
    assert limit_of("cgroup.freeze") == "cgroup.freeze"


def test_the_disk_of_a_file_is_not_its_partition(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel's own description of devices tells; a device that is no partition is its own disk."""
    device = os.stat("/").st_dev  # noqa: PTH116 - its number is all that matters
    number = f"{os.major(device)}:{os.minor(device)}"
    if not os.major(device):
        pytest.skip("the root file system has no device of its own")
    partition = tmp_path / "disk" / "partition"
    partition.mkdir(parents=True)
    (tmp_path / number).symlink_to(partition)
    monkeypatch.setattr(disk, "_DEVICES", str(tmp_path))
    assert find_disk("/") == number
    (partition / "partition").write_text("1\n")
    (tmp_path / "disk" / "dev").write_text("8:32\n")
    assert find_disk("/") == "8:32"


def test_an_overlay_whose_upper_layer_cannot_be_seen_has_no_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the working folder that has none, not a file that is missing."""

    def mount_of(_: str) -> Mount:
        return Mount("/", "/proc", "overlay", "overlay", "rw,lowerdir=/a,upperdir=/no/such/folder,workdir=/b")

    monkeypatch.setattr(disk, "mount_of", mount_of)
    with pytest.raises(LimitNotEnforceableError, match="no single disk under '/proc'"):
        find_disk("/proc")


def test_without_a_single_disk_there_is_no_limit() -> None:
    """A file system of the kernel's own, and a file that is not there."""
    with pytest.raises(LimitNotEnforceableError, match="no single disk under '/proc'"):
        find_disk("/proc")
    with pytest.raises(LimitNotEnforceableError, match="No such file"):
        find_disk("/no/such/file")
