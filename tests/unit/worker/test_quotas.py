"""Quotas count what runs."""

from __future__ import annotations

import pytest

from jobworker.core.errors import InvalidArgumentError, QuotaExceededError
from jobworker.core.spec import JobSpec
from jobworker.worker.quotas import JobCounts, Quotas


def test_a_job_counts_from_its_admission_to_its_release() -> None:
    """For its owner and in all; one that fails to start does not count; none at all is no bound."""
    running = JobCounts(Quotas(running_jobs=2, running_jobs_per_owner=1))
    with running.admit("ada"):
        pass
    with pytest.raises(QuotaExceededError, match="running jobs of ada"), running.admit("ada"):
        pass
    with pytest.raises(ZeroDivisionError), running.admit("bob"):
        raise ZeroDivisionError
    with running.admit("bob"):
        pass
    with pytest.raises(QuotaExceededError, match="the limit of 2 running jobs is"), running.admit("eve"):
        pass
    running.take("eve")  # found running at a restart
    running.release("eve")
    running.release("ada")
    with running.admit("ada"):
        pass
    free = JobCounts(Quotas(running_jobs=None, running_jobs_per_owner=None))
    for _ in range(5000):
        free.take("ada")
    with free.admit("ada"):
        pass


def test_a_command_is_measured_as_the_kernel_does() -> None:
    """Arguments and environment in bytes, each with its NUL: the bound itself is allowed."""
    spec = JobSpec(argv=("echo", "é"), env={"A": "\udcff"})
    size = len(b"echo\0\xc3\xa9\0A=\xff\0")
    Quotas(command_bytes=size).check_size(spec)
    Quotas(command_bytes=None).check_size(spec)
    with pytest.raises(InvalidArgumentError, match=str(size)):
        Quotas(command_bytes=size - 1).check_size(spec)
