"""The table of permissions is complete, and what it does not say is denied."""

from __future__ import annotations

import pytest

from jobworker.auth.identity import Principal
from jobworker.auth.policy import POLICY, Permission, Scope, authorize, scope_of
from jobworker.auth.roles import Role
from jobworker.core.errors import PermissionDeniedError

_ABOUT_JOBS = [
    Permission.START,
    Permission.READ,
    Permission.LIST,
    Permission.STOP,
    Permission.SIGNAL,
    Permission.PAUSE,
    Permission.UPDATE,
    Permission.DELETE,
]
_ABOUT_THE_SERVER = [Permission.INFO, Permission.HEALTH, Permission.REFLECT]


def _principal(*roles: Role) -> Principal:
    return Principal(name="alice", roles=frozenset(roles), serial="01")


def test_every_role_has_its_row() -> None:
    """Nobody gets a role without somebody having decided what it permits."""
    assert set(POLICY) == set(Role)
    assert set(_ABOUT_JOBS + _ABOUT_THE_SERVER) == set(Permission)


@pytest.mark.parametrize("permission", _ABOUT_JOBS)
def test_a_user_reaches_its_own_jobs_and_no_others(permission: Permission) -> None:
    """Role user: own jobs."""
    user = _principal(Role.USER)
    authorize(user, permission)
    assert scope_of(user, permission) is Scope.OWN


@pytest.mark.parametrize("roles", [(Role.ADMIN,), (Role.ADMIN, Role.USER)])
@pytest.mark.parametrize("permission", _ABOUT_JOBS)
def test_an_admin_reaches_every_job(permission: Permission, roles: tuple[Role, ...]) -> None:
    """Role admin: every job. Another role beside it takes nothing away."""
    admin = _principal(*roles)
    authorize(admin, permission)
    assert scope_of(admin, permission) is Scope.ANY


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("permission", _ABOUT_THE_SERVER)
def test_every_role_may_ask_about_the_server(permission: Permission, role: Role) -> None:
    """What is about no job is open to every role."""
    authorize(_principal(role), permission)
    assert scope_of(_principal(role), permission) is Scope.ANY


@pytest.mark.parametrize("permission", Permission)
def test_who_has_no_role_may_do_nothing(permission: Permission) -> None:
    """Without a role everything is denied, one's own jobs included."""
    nobody = _principal()
    with pytest.raises(PermissionDeniedError, match=rf"'alice' lacks the permission '{permission}'.* \(none\)"):
        authorize(nobody, permission)
    assert scope_of(nobody, permission) is Scope.NONE


def test_what_the_table_does_not_say_is_denied(monkeypatch: pytest.MonkeyPatch) -> None:
    """A permission without an entry is nobody's, an admin's neither."""
    monkeypatch.setattr("jobworker.auth.policy.POLICY", {Role.ADMIN: {}, Role.USER: {Permission.READ: Scope.OWN}})
    with pytest.raises(PermissionDeniedError, match=r"'signal', which its roles \(admin, user\) do not give"):
        authorize(_principal(Role.ADMIN, Role.USER), Permission.SIGNAL)
    assert scope_of(_principal(Role.ADMIN), Permission.READ) is Scope.NONE
    assert scope_of(_principal(Role.ADMIN, Role.USER), Permission.READ) is Scope.OWN
