"""How long to wait between attempts, and when to give up."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from datetime import timedelta

FIRST_DELAY = timedelta(milliseconds=100)  # a daemon that restarts is back in less than a second
LONG = timedelta(seconds=3)  # the outage that somebody who waits wants to know of; a restart is shorter
MAX_DELAY = timedelta(seconds=1)  # how late a mended connection may be noticed


class Backoff:
    """Exponential back-off with jitter, within a budget of time without contact.

    The budget begins anew with every `contact`. `clock` gives seconds, `jitter` a number between its two arguments.
    """

    def __init__(
        self,
        budget: timedelta,
        *,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self.budget = budget
        self._clock = clock
        self._jitter = jitter
        self._failures = 0
        self._give_up_at = 0.0
        self._told = False

    def contact(self) -> None:
        """The server was heard of: what fails from now on is a new outage."""
        self._failures = 0
        self._told = False

    @property
    def failing(self) -> bool:
        """Whether the server has not been heard of since the last failure."""
        return self._failures > 0

    @property
    def long(self) -> bool:
        """Whether the server has been away for `LONG`."""
        began = self._give_up_at - self.budget.total_seconds()
        return self.failing and self._clock() - began >= LONG.total_seconds()

    def grown_long(self) -> bool:
        """Whether the server has been away for `LONG`; true once an outage."""
        if self._told or not self.long:
            return False
        self._told = True
        return True

    def failure(self) -> timedelta | None:
        """How long to wait before the next attempt; `None` when the budget is spent."""
        now = self._clock()
        if self._failures == 0:
            self._give_up_at = now + self.budget.total_seconds()
        left = self._give_up_at - now
        if left <= 0:
            return None
        # The exponent is bounded because a float's is; the delay stopped growing long before.
        longest = min(MAX_DELAY, FIRST_DELAY * 2 ** min(self._failures, 16)).total_seconds()
        self._failures += 1
        # Jitter spreads the followers of a restarted server, which all lost it at the same moment.
        return timedelta(seconds=min(left, self._jitter(longest / 2, longest)))
