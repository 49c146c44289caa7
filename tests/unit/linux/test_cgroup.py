"""Groups of the kernel's own, and its files as they read where a controller is on."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Generator
from pathlib import Path

import pytest

from jobworker.core.usage import Usage
from jobworker.linux import usage
from jobworker.linux.cgroup import Cgroup
from jobworker.linux.placement import hand_on, missing_limits, own_base

BASE = own_base()


@pytest.fixture
def group() -> Generator[Cgroup]:
    """A new group with a process that runs for ever."""
    if BASE is None:
        pytest.skip("no cgroup v2 that this user may make groups in")
    group = Cgroup(BASE / f"jobworker-test-{os.getpid()}")
    group.create()
    with subprocess.Popen(["sleep", "4302"]) as process:
        group.add(process.pid)
        yield group
        group.kill()
    while not group.remove():
        pass


def read(group: Cgroup, name: str) -> str:
    """A file of a group."""
    return Path(group.path, name).read_text()


def test_a_frozen_group_stands_still_until_it_is_thawed(group: Cgroup) -> None:
    """When the call returns, it does; twice is as once."""
    for _ in range(2):
        group.freeze()
        assert "frozen 1" in read(group, "cgroup.events")
    group.thaw()
    assert read(group, "cgroup.freeze") == "0\n"


def test_writes_are_all_done_or_none(group: Cgroup) -> None:
    """The one that was refused is named, and those before it are taken back."""
    with group.written([("cgroup.max.depth", "5"), ("cgroup.max.descendants", "6")]):
        pass
    assert (read(group, "cgroup.max.depth"), read(group, "cgroup.max.descendants")) == ("5\n", "6\n")
    missing = [("cgroup.max.depth", "7"), ("cgroup.max.depth", "8"), ("no.such.file", "9")]
    with pytest.raises(FileNotFoundError) as caught, group.written(missing):
        pass
    assert caught.value.filename == "no.such.file"
    assert read(group, "cgroup.max.depth") == "5\n"
    wrong = [("cgroup.max.descendants", "1"), ("cgroup.max.depth", "many")]
    with pytest.raises(OSError, match="Invalid") as refused, group.written(wrong):
        pass
    assert refused.value.filename == "cgroup.max.depth"
    assert read(group, "cgroup.max.descendants") == "6\n"


def test_writes_are_taken_back_where_they_cannot_be_kept(group: Cgroup) -> None:
    """They were in force meanwhile."""
    with pytest.raises(OSError, match="full"), group.written([("cgroup.max.depth", "5")]):  # noqa: PT012 - a block that fails
        assert read(group, "cgroup.max.depth") == "5\n"
        raise OSError(errno.ENOSPC, "full")
    assert read(group, "cgroup.max.depth") == "max\n"


@pytest.mark.parametrize(
    "name, content, value, restored",
    [
        (
            "io.max",
            "8:0 rbps=5 wbps=max riops=max wiops=max\n",
            "8:0 rbps=9 wbps=9",
            "8:0 rbps=5 wbps=max riops=max wiops=max",
        ),
        ("io.max", "8:16 rbps=5\n", "8:0 rbps=9", "8:0 rbps=max wbps=max riops=max wiops=max"),
        ("io.weight", "default 100\n8:0 50\n", "default 7", "default 100"),
        ("cpuset.cpus", "", "0-1", "0-3"),
    ],
)  # fmt: skip - a table
def test_a_write_is_taken_back_in_the_words_of_its_file(
    tmp_path: Path, name: str, content: str, value: str, restored: str
) -> None:
    """Files with a line a device take one line at a time; a cpuset that says nothing is that of the group above."""
    group = tmp_path / "group"
    group.mkdir()
    (group / name).write_text(content)
    (tmp_path / "cpuset.cpus.effective").write_text("0-3\n")
    with pytest.raises(FileNotFoundError), Cgroup(group).written([(name, value), ("none", "")]):
        pass
    assert (group / name).read_text().startswith(restored)  # a kernel's file would be replaced, not overwritten


def test_a_write_that_cannot_be_taken_back_is_said(tmp_path: Path) -> None:
    """The error is that of the file which has not its former value, and the others have theirs."""
    group = tmp_path / "group"
    group.mkdir()
    (group / "one").write_text("1")
    (group / "cpuset.cpus").write_text("")
    writes = [("one", "2"), ("cpuset.cpus", "0"), ("none", "")]
    with pytest.raises(FileNotFoundError) as caught, Cgroup(group).written(writes):
        pass
    assert caught.value.filename == "cpuset.cpus"
    assert (group / "one").read_text() == "1"


def test_everybody_may_read_a_group(tmp_path: Path) -> None:
    """Whatever the umask: programs size themselves by the limits of their group."""
    before = os.umask(0o077)
    try:
        Cgroup(tmp_path / "group").create()
    finally:
        os.umask(before)
    assert (tmp_path / "group").stat().st_mode & 0o777 == 0o755


def test_the_end_of_a_group_as_a_whole_is_counted_apart(tmp_path: Path) -> None:
    """Only what the kernel counts of the group itself; an older kernel does not say."""
    local = tmp_path / "memory.events.local"
    assert Cgroup(tmp_path).oom_group_kills() is None
    local.write_text("oom 2\noom_kill 3\n")
    assert Cgroup(tmp_path).oom_group_kills() is None
    local.write_text("oom 2\noom_kill 3\noom_group_kill 1\n")
    assert Cgroup(tmp_path).oom_group_kills() == 1


def test_usage_is_what_the_files_say(tmp_path: Path) -> None:
    """In seconds and bytes, summed over disks."""
    files = {
        "cpu.stat": "usage_usec 3000000\nuser_usec 2000000\nsystem_usec 1000000\nnr_throttled 4\nthrottled_usec 500000",
        "memory.current": "4096\n",
        "memory.peak": "8192\n",
        "memory.events": "low 0\nhigh 0\nmax 9\noom 2\noom_kill 3\noom_group_kill 1\n",
        "io.stat": "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0\n7:0 8:16 rbytes=10 wbytes=20 rios=30 wios=40\n",
        "pids.current": "5\n",
        "pids.peak": "6\n",
        "cpu.pressure": "some avg10=1.00 avg60=0.00 avg300=0.00 total=250000\nfull avg10=0.00 avg60=0.00 total=9\n",
    }
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    assert usage.read(tmp_path, 7.5) == Usage(
        wall_seconds=7.5,
        cpu_seconds=3,
        user_seconds=2,
        system_seconds=1,
        throttled_seconds=0.5,
        throttled_periods=4,
        memory_bytes=4096,
        memory_peak_bytes=8192,
        oom_kills=3,
        io_read_bytes=11,
        io_write_bytes=22,
        io_read_operations=33,
        io_write_operations=44,
        pids=5,
        pids_peak=6,
        cpu_pressure_seconds=0.25,
    )
    assert Cgroup(tmp_path).oom_kills() == 3
    (tmp_path / "io.stat").write_text("")
    assert usage.read(tmp_path, 1).io_read_bytes == 0, "a job without I/O is known to have done none"


def test_a_group_that_is_gone_tells_nothing_but_the_time() -> None:
    """It may go between two looks."""
    assert usage.read("/sys/fs/cgroup/no-such-group", 2) == Usage(wall_seconds=2)
    assert Cgroup("/sys/fs/cgroup/no-such-group").oom_kills() == 0


def test_that_no_more_groups_may_be_made_is_said(group: Cgroup) -> None:
    """It is not the kernel's age that withholds the limits."""
    group.write("cgroup.max.descendants", "0")
    reasons = set(missing_limits(Path(group.path), {}).values())
    assert reasons == {f"no group can be made in {group.path}: cgroup.max.descendants there or above allows no more"}


def test_what_cannot_be_limited_is_said_with_its_reason(group: Cgroup) -> None:
    """For every controller that a group does not have, one for each limit that needs it."""
    controllers = read(group, "cgroup.controllers").split()
    refused = hand_on(Path(group.path), ["memory", "nonsense"])
    assert refused["nonsense"] == f"{group.path} has no nonsense controller"
    if "memory" not in controllers:
        missing = missing_limits(Path(group.path), refused)
        assert missing["memory"] == missing["oom_group"] == f"{group.path} has no memory controller"
        assert missing["cpus"] == "this kernel has no cpu.max"
    else:
        assert "be in use" in refused["memory"] or "busy" in refused["memory"], "there are processes in the group"
