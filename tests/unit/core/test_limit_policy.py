"""Which limits a job gets, by what it asks for and what its owner may have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from jobworker.core.errors import InvalidArgumentError, LimitAboveMaximumError
from jobworker.core.limit_policy import LimitPolicy
from jobworker.core.limits import IoLimit, Limits

KIB, GIB = 1024, 1024**3


def io(**rates: Any) -> tuple[IoLimit, ...]:  # noqa: ANN401 - as its fields are
    """Limits of the disk under the working directory."""
    return (IoLimit(**rates),)


def test_without_a_policy_a_job_has_what_it_asks_for() -> None:
    """Nothing is added, but what makes a limit of memory one."""
    assert LimitPolicy().effective(Limits()) == Limits()
    assert LimitPolicy().effective(Limits(cpus=1.5, pids=7)) == Limits(cpus=1.5, pids=7)


def test_a_job_whose_memory_is_limited_does_not_swap_and_ends_as_a_whole() -> None:
    """Unless it asks for something else; that memory may be limited by a default or a maximum makes no difference."""
    limited = Limits(memory=GIB, swap=0, oom_group=True)
    assert LimitPolicy().effective(Limits(memory=GIB)) == limited
    assert LimitPolicy(default=Limits(memory=GIB)).effective(Limits()) == limited
    assert LimitPolicy(maximum=Limits(memory=GIB, swap=GIB)).effective(Limits()) == limited
    asked = Limits(memory=GIB, swap=5, oom_group=False)
    assert LimitPolicy().effective(asked) == asked


def test_what_is_not_asked_for_has_the_default() -> None:
    """A default holds where nothing is asked for, and nowhere else."""
    policy = LimitPolicy(default=Limits(cpus=1, pids=100), maximum=Limits(cpus=4, pids=100))
    assert policy.effective(Limits(cpus=3)) == Limits(cpus=3, pids=100)


def test_nobody_evades_a_maximum_by_not_asking() -> None:
    """Without a default the maximum is in force."""
    policy = LimitPolicy(maximum=Limits(cpus=2, pids=100, cpuset="0-1", io=io(write_bytes_per_second=5)))
    assert policy.effective(Limits()) == policy.maximum


def test_a_maximum_of_a_weight_gives_nobody_more_than_the_kernel_would() -> None:
    """A job that asks for no weight has the kernel's, or the maximum where that is less."""
    policy = LimitPolicy(maximum=Limits(cpu_weight=500, io_weight=10))
    assert policy.effective(Limits()) == Limits(cpu_weight=100, io_weight=10)
    assert policy.effective(Limits(cpu_weight=500)).cpu_weight == 500


MAXIMUM = Limits(
    cpus=2,
    cpu_weight=200,
    cpuset="0-3,8",
    memory=GIB,
    memory_high=GIB,
    swap=GIB,
    pids=100,
    io=(IoLimit(read_bytes_per_second=10), IoLimit(device="/dev/vdb", write_operations_per_second=7)),
    io_weight=200,
)


@pytest.mark.parametrize(
    "asked, limit, maximum",
    [
        (Limits(cpus=2.01), "cpus", "2"),
        (Limits(cpu_weight=201), "cpu_weight", "200"),
        (Limits(cpuset="3-4"), "cpuset", "0-3,8"),
        (Limits(cpuset="0,9"), "cpuset", "0-3,8"),
        (Limits(memory=GIB + 1), "memory", str(GIB)),
        (Limits(memory_high=GIB + 1), "memory_high", str(GIB)),
        (Limits(swap=GIB + 1), "swap", str(GIB)),
        (Limits(pids=101), "pids", "100"),
        (Limits(io_weight=201), "io_weight", "200"),
        (Limits(io=io(read_bytes_per_second=11)), "io.read_bytes_per_second", "10"),
        (Limits(io=(IoLimit(device="/dev/vdc", read_bytes_per_second=11),)), "io.read_bytes_per_second", "10"),
        (
            Limits(io=(IoLimit(device="/dev/vdb", write_operations_per_second=8),)),
            "io.write_operations_per_second",
            "7",
        ),
    ],
)
def test_more_than_the_maximum_is_refused(asked: Limits, limit: str, maximum: str) -> None:
    """The error names the limit and the bound; a disk that the maximum does not name has that of the job's disk."""
    with pytest.raises(LimitAboveMaximumError) as refused:
        LimitPolicy(maximum=MAXIMUM).effective(asked)
    assert (refused.value.limit, refused.value.maximum) == (limit, maximum)
    assert isinstance(refused.value, InvalidArgumentError)
    assert refused.value.field == f"limits.{limit}"


def test_the_maximum_itself_may_be_asked_for() -> None:
    """A bound is what may be had."""
    asked = Limits(cpus=2, cpuset="1,2-3", memory=GIB, pids=100, io=MAXIMUM.io)
    effective = LimitPolicy(maximum=MAXIMUM).effective(asked)
    assert (effective.cpus, effective.cpuset, effective.memory, effective.io) == (2, "1,2-3", GIB, MAXIMUM.io)


def test_disks_are_limited_rate_by_rate() -> None:
    """What is asked for of one rate leaves the others what they would be; every disk that anybody names counts."""
    policy = LimitPolicy(
        default=Limits(io=io(write_bytes_per_second=5)),
        maximum=Limits(io=io(read_bytes_per_second=9, write_bytes_per_second=9)),
    )
    asked = (IoLimit(read_operations_per_second=3), IoLimit(device="/srv", read_bytes_per_second=4))
    assert policy.effective(Limits(io=asked)).io == (
        IoLimit(read_bytes_per_second=9, write_bytes_per_second=5, read_operations_per_second=3),
        IoLimit(device="/srv", read_bytes_per_second=4, write_bytes_per_second=9),
    )


def test_a_default_slows_a_job_down_before_its_own_memory_is_used_up() -> None:
    """A default of memory_high above the memory that a job asks for would be none."""
    policy = LimitPolicy(default=Limits(memory=2 * GIB, memory_high=GIB))
    assert policy.effective(Limits(memory=5 * KIB)).memory_high == 5 * KIB
    assert policy.effective(Limits()).memory_high == GIB


def test_what_cannot_be_enforced_is_left_out() -> None:
    """A default, a maximum and what follows from a limit of memory are not in force where the server cannot do it."""
    policy = LimitPolicy(default=Limits(cpus=1), maximum=Limits(memory=GIB, pids=5, io=io(read_bytes_per_second=1)))
    assert policy.requested() == ("cpus", "memory", "pids", "io")
    assert policy.effective(Limits(), enforceable=("memory", "pids")) == Limits(memory=GIB, pids=5)
    assert policy.effective(Limits(), enforceable=()) == Limits()


@pytest.mark.parametrize(
    "build",
    [
        lambda: LimitPolicy(default=Limits(pids=2), maximum=Limits(pids=1)),
        lambda: LimitPolicy(maximum=Limits(oom_group=True)),
    ],
)
def test_what_contradicts_itself_is_refused(build: Callable[[], object]) -> None:
    """A default above its maximum, and a maximum of what has no order."""
    with pytest.raises(InvalidArgumentError):
        build()


def test_an_update_changes_what_it_names_and_nothing_else() -> None:
    """Other limits stay, even where they are above the maximum of whoever updates: an admin may have given them."""
    policy = LimitPolicy(default=Limits(cpus=1), maximum=Limits(pids=5, memory=GIB))
    present = Limits(cpus=3, memory=2 * GIB, swap=7, pids=4)
    assert policy.updated(present, Limits(pids=5, cpus=9), {"pids"}) == Limits(cpus=3, memory=2 * GIB, swap=7, pids=5)
    with pytest.raises(LimitAboveMaximumError):
        policy.updated(present, Limits(pids=6), {"pids"})


def test_an_update_gives_back_what_it_names_and_does_not_set() -> None:
    """It becomes what a new job would get: the default, the maximum, or none."""
    policy = LimitPolicy(default=Limits(cpus=1), maximum=Limits(pids=5))
    present = Limits(cpus=3, pids=2, memory_high=7 * KIB, io=io(read_bytes_per_second=1))
    names = {"cpus", "pids", "memory_high", "io"}
    assert policy.updated(present, Limits(), names) == Limits(cpus=1, pids=5)


def test_an_update_of_memory_keeps_what_was_said_of_swap() -> None:
    """A job that gets its first limit of memory does not swap; one that may keeps what it has."""
    assert LimitPolicy().updated(Limits(), Limits(memory=5 * KIB), {"memory"}) == Limits(
        memory=5 * KIB, swap=0, oom_group=True
    )
    present = Limits(memory=5 * KIB, swap=9, oom_group=False)
    assert LimitPolicy().updated(present, Limits(memory=6 * KIB), {"memory"}) == Limits(
        memory=6 * KIB, swap=9, oom_group=False
    )


def test_what_is_given_back_is_what_a_new_job_with_the_other_limits_would_get() -> None:
    """No swap and an end as a whole where memory is limited, and no memory_high above it.

    That this memory is above the maximum of whoever updates makes no difference.
    """
    present = Limits(memory=5 * KIB, swap=9, oom_group=False, memory_high=KIB)
    assert LimitPolicy().updated(present, Limits(), {"swap", "oom_group"}) == Limits(
        memory=5 * KIB, swap=0, oom_group=True, memory_high=KIB
    )
    assert LimitPolicy().updated(Limits(swap=9), Limits(), {"swap"}) == Limits()
    policy = LimitPolicy(default=Limits(memory_high=GIB), maximum=Limits(memory=4 * KIB))
    assert policy.updated(present, Limits(), {"memory_high"}).memory_high == 5 * KIB
    assert policy.updated(Limits(swap=9), Limits(), {"swap"}) == Limits(), "memory is not limited by an update of swap"
