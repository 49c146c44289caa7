"""Whom jobs run as."""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass

from jobworker.core.errors import InvalidArgumentError

_FALLBACK = "nobody"  # nobody runs as root by omission


@dataclass(frozen=True, kw_only=True, slots=True)
class JobUser:
    """A user of this machine, looked up before any job needs it."""

    name: str
    uid: int
    gid: int
    groups: list[int]
    home: str

    @classmethod
    def find(cls, name: str | None) -> JobUser:
        """The user of this name; without one the user of this process, or "nobody" where that is root.

        Raises `InvalidArgumentError` if there is no such user, or if this process has no right to become it.
        """
        try:
            if name is not None:
                entry = pwd.getpwnam(name)
            elif os.geteuid() == 0:
                entry = pwd.getpwnam(_FALLBACK)
            else:
                return cls._present()
        except KeyError:
            raise InvalidArgumentError("job_user", f"there is no user {name or _FALLBACK!r} on this machine") from None
        if os.geteuid() not in (0, entry.pw_uid):
            raise InvalidArgumentError("job_user", f"only root can run jobs as another user, such as {entry.pw_name!r}")
        return cls._of(entry)

    @classmethod
    def _present(cls) -> JobUser:
        """The user of this process, which need not have a name: in a container it often has none."""
        uid = os.geteuid()
        try:
            return cls._of(pwd.getpwuid(uid))
        except KeyError:
            return cls(name=str(uid), uid=uid, gid=os.getegid(), groups=os.getgroups(), home="/")

    @classmethod
    def _of(cls, entry: pwd.struct_passwd) -> JobUser:
        return cls(
            name=entry.pw_name,
            uid=entry.pw_uid,
            gid=entry.pw_gid,
            groups=os.getgrouplist(entry.pw_name, entry.pw_gid),
            home=entry.pw_dir,
        )
