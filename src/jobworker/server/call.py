"""A call while it runs: who calls, what for, and which jobs that reaches."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import grpc

from jobworker.auth.identity import Principal
from jobworker.auth.policy import Permission, Scope, scope_of
from jobworker.core.job import Job

# A text, since these are generic in the stubs only.
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


@dataclass(kw_only=True, slots=True)
class Call:
    """An admitted call. `job_id` is filled in by whoever learns it, for the audit log."""

    principal: Principal
    permission: Permission
    job_id: str | None = None

    @property
    def owner(self) -> str | None:
        """Whose jobs the call reaches; None for everybody's."""
        return None if scope_of(self.principal, self.permission) is Scope.ANY else self.principal.name


# gRPC runs each call in a context of its own. The gate sets this before it lets a servicer work.
current_call: ContextVar[Call] = ContextVar("current_call")


class _Jobs(Protocol):
    async def get(self, job_id: str, *, owner: str | None) -> Job: ...


async def reach(jobs: _Jobs, job_id: str) -> Job:
    """A job that the current call reaches.

    Raises `JobNotFoundError` for somebody else's job as for one that does not exist: after the same work, with the
    same text.
    """
    call = current_call.get()
    call.job_id = job_id
    return await jobs.get(job_id, owner=call.owner)
