"""Who may do what: one table."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum, StrEnum

from jobworker.auth.identity import Principal
from jobworker.auth.roles import Role
from jobworker.core.errors import PermissionDeniedError


class Permission(StrEnum):
    """Something that a call does."""

    START = "start"
    READ = "read"
    LIST = "list"
    STOP = "stop"
    SIGNAL = "signal"
    PAUSE = "pause"
    UPDATE = "update"
    DELETE = "delete"
    INFO = "info"
    HEALTH = "health"
    REFLECT = "reflect"


class Scope(IntEnum):
    """Whose jobs a permission reaches, from nobody's to everybody's."""

    NONE = 0
    OWN = 1
    ANY = 2


# What is not here is denied. A permission that is about no job in particular is ANY.
POLICY: Mapping[Role, Mapping[Permission, Scope]] = {
    Role.ADMIN: {
        Permission.START: Scope.ANY,
        Permission.READ: Scope.ANY,
        Permission.LIST: Scope.ANY,
        Permission.STOP: Scope.ANY,
        Permission.SIGNAL: Scope.ANY,
        Permission.PAUSE: Scope.ANY,
        Permission.UPDATE: Scope.ANY,
        Permission.DELETE: Scope.ANY,
        Permission.INFO: Scope.ANY,
        Permission.HEALTH: Scope.ANY,
        Permission.REFLECT: Scope.ANY,
    },
    Role.USER: {
        Permission.START: Scope.OWN,
        Permission.READ: Scope.OWN,
        Permission.LIST: Scope.OWN,
        Permission.STOP: Scope.OWN,
        Permission.SIGNAL: Scope.OWN,
        Permission.PAUSE: Scope.OWN,
        Permission.UPDATE: Scope.OWN,
        Permission.DELETE: Scope.OWN,
        Permission.INFO: Scope.ANY,
        Permission.HEALTH: Scope.ANY,
        Permission.REFLECT: Scope.ANY,
    },
}


def scope_of(principal: Principal, permission: Permission) -> Scope:
    """Whose jobs the principal's widest role lets the permission reach."""
    granted = (POLICY[role].get(permission, Scope.NONE) for role in principal.roles)
    return max(granted, default=Scope.NONE)


def authorize(principal: Principal, permission: Permission) -> None:
    """Raise `PermissionDeniedError` unless a role of the principal has the permission, in whatever scope."""
    if scope_of(principal, permission) is Scope.NONE:
        roles = ", ".join(sorted(principal.roles)) or "none"
        raise PermissionDeniedError(
            f"{principal.name!r} lacks the permission {permission.value!r}, which its roles ({roles}) do not give"
        )
