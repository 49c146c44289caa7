"""Which limits the jobs of a caller get without asking, and the most that they may have: by role."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from jobworker.auth.identity import Principal
from jobworker.auth.roles import Role
from jobworker.core.limit_policy import NO_POLICY, LimitPolicy


@dataclass(frozen=True, kw_only=True, slots=True)
class RoleLimits:
    """A policy for each role; a role without one has no defaults and no maximum."""

    policies: Mapping[Role, LimitPolicy] = field(default_factory=dict[Role, LimitPolicy])

    def of(self, principal: Principal) -> LimitPolicy:
        """The policy of the first of the roles, in their order, that the principal has: an admin is always one."""
        role = next(role for role in Role if role in principal.roles)
        return self.policies.get(role, NO_POLICY)

    def requested(self) -> tuple[str, ...]:
        """Names of the limits that any role gets without asking."""
        return tuple(dict.fromkeys(name for policy in self.policies.values() for name in policy.requested()))
