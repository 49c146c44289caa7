"""What one server will take on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

from jobworker.core.errors import InvalidArgumentError, QuotaExceededError
from jobworker.core.spec import JobSpec
from jobworker.core.units import format_size


@dataclass(frozen=True, kw_only=True, slots=True)
class Quotas:
    """Bounds; `None` is no bound.

    `command_bytes` bounds the arguments and the environment of a job together, in bytes as the kernel counts them.
    """

    running_jobs: int | None = 1000
    running_jobs_per_owner: int | None = 200
    command_bytes: int | None = 1024 * 1024

    def check_size(self, spec: JobSpec) -> None:
        """Refuse a command that is too large. Raises `InvalidArgumentError`."""
        bound = self.command_bytes
        if bound is not None and (size := spec.command_bytes) > bound:
            raise InvalidArgumentError(
                "spec",
                f"argv and env have {format_size(size)} together; this server takes at most {format_size(bound)}",
            )


class JobCounts:
    """Counts the running jobs of each owner against the quotas."""

    def __init__(self, quotas: Quotas) -> None:
        self._quotas = quotas
        self._by_owner: Counter[str] = Counter()

    def take(self, owner: str) -> None:
        """Count one more, whatever the quotas say: it runs already."""
        self._by_owner[owner] += 1

    def release(self, owner: str) -> None:
        """Count one less."""
        self._by_owner[owner] -= 1
        if not self._by_owner[owner]:
            del self._by_owner[owner]

    @contextmanager
    def admit(self, owner: str) -> Generator[None]:
        """Count one more, which stays unless the block fails. Raises `QuotaExceededError`."""
        _check("running jobs", self._by_owner.total(), self._quotas.running_jobs)
        _check(f"running jobs of {owner}", self._by_owner[owner], self._quotas.running_jobs_per_owner)
        self.take(owner)
        try:
            yield
        except BaseException:
            self.release(owner)
            raise


def _check(resource: str, used: int, bound: int | None) -> None:
    if bound is not None and used >= bound:
        raise QuotaExceededError(resource, bound)
