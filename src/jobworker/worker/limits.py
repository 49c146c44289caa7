"""Which limits a job gets here: what it asks for, what its policy says, and what this place can enforce.

A limit that somebody asks for is in force, or the request fails. A default or a maximum of the policy that cannot be
enforced is not: the job's limits do not have it, and `WorkerInfo.missing_limits` says why. That is about this place; a
policy that limits the disk under the working directory refuses a job whose working directory is on none.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from functools import lru_cache

from jobworker.core.errors import InvalidArgumentError, LimitNotEnforceableError
from jobworker.core.limit_policy import LimitPolicy
from jobworker.core.limits import Limits
from jobworker.executors.base import ExecutorInfo


@lru_cache(maxsize=128)  # most jobs ask for the same few
def at_start(asked: Limits, policy: LimitPolicy, place: ExecutorInfo) -> Limits:
    """The limits of a new job. Raises `LimitNotEnforceableError` and `LimitAboveMaximumError`."""
    _check_enforceable(asked.requested(), place)
    return policy.effective(asked, enforceable=place.enforceable_limits)


def after_update(
    present: Limits, asked: Limits, names: Collection[str], policy: LimitPolicy, place: ExecutorInfo
) -> Limits:
    """The limits of a running job after those of `names` have changed; raises as `at_start` does."""
    if not names:
        raise InvalidArgumentError("limits", "says nothing that is to change")
    _check_enforceable((name for name in asked.requested() if name in names), place)
    return policy.updated(present, asked, names, enforceable=place.enforceable_limits)


def _check_enforceable(limits: Iterable[str], place: ExecutorInfo) -> None:
    missing = [limit for limit in limits if limit not in place.enforceable_limits]
    if not missing:
        return
    reasons, by_reason = dict(place.missing_limits), dict[str, list[str]]()
    for limit in missing:
        by_reason.setdefault(reasons.get(limit, "this server cannot enforce it"), []).append(f"limits.{limit}")
    told = "; ".join(f"{first}: {reason}{_and_of(others)}" for reason, (first, *others) in by_reason.items())
    problem = told.removeprefix(f"limits.{missing[0]}: ")
    raise LimitNotEnforceableError(missing[0], f"{problem}; go without {'it' if len(missing) == 1 else 'them'}")


def _and_of(limits: Collection[str]) -> str:
    return f" (and so {', '.join(limits)})" if limits else ""
