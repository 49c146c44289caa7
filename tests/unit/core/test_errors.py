"""Errors say what is wrong, where, and what to do about it."""

from __future__ import annotations

import errno

import pytest

from jobworker.core.errors import (
    OUTPUT_ON_DISK,
    CommandNotStartedError,
    JobNotFoundError,
    JobworkerError,
    QuotaExceededError,
)


@pytest.mark.parametrize(
    "error, text",
    [
        (
            CommandNotStartedError(errno=errno.ENOSPC, stage="supervise", subject="echo"),
            "cannot start 'echo': the server's disk is full (supervise: No space left on device)",
        ),
        (
            CommandNotStartedError(errno=errno.EAGAIN, stage="fork", subject="echo"),
            "cannot start 'echo': fork failed: Resource temporarily unavailable",
        ),
        (JobNotFoundError("89d2"), "no job '89d2' (an id is written whole here)"),
        (JobNotFoundError("nightly"), "no job 'nightly'"),
        (JobNotFoundError("0" * 36), f"no job '{'0' * 36}'"),
        (QuotaExceededError("running jobs of ada", 5), "the limit of 5 running jobs of ada is reached"),
        (
            QuotaExceededError(OUTPUT_ON_DISK, 50 * 2**30),
            "the limit of 50GiB of output on the server's disk (max_state_bytes) is reached: remove ended jobs",
        ),
    ],
)
def test_text(error: JobworkerError, text: str) -> None:
    """A full disk is the server's, a bound on output says how to come below it, and a part of an id that it is one."""
    assert str(error) == text
