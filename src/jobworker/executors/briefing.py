"""What a supervisor is told of a job: how to watch it, and how to launch its program."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jobworker.core.job import Job
from jobworker.core.records import Record
from jobworker.executors.user import JobUser
from jobworker.linux.limits import Write
from jobworker.runtime.burial import ID_VARIABLE

BASE_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, kw_only=True, slots=True)
class Briefing:
    """What is the same for all jobs of an executor: whom they run as, and how their records and output are kept.

    `output_reserve` is in bytes; `splice` says whether those who watch an output are told of what is spliced into it,
    and `holes` whether a file can give back its beginning.
    """

    user: JobUser
    boot_id: str
    sync: bool
    output_reserve: int
    splice: bool
    holes: bool

    def of_launch(self, job: Job, cgroup: str | None, limits: Sequence[Write]) -> Record:
        """What is needed to run the program, beyond the spec."""
        user = self.user
        base = {"PATH": BASE_PATH, "LANG": "C.UTF-8", "SHELL": "/bin/sh"}
        person = {"HOME": user.home, "USER": user.name, "LOGNAME": user.name}
        return {
            "env": {**base, **person, **job.spec.env, ID_VARIABLE: job.id},
            "uid": user.uid,
            "gid": user.gid,
            "groups": user.groups,
            "cgroup": cgroup,
            "limits": limits,
            "boot_id": self.boot_id,
            "sync": self.sync,
        }

    def of_supervisor(self, job: Job, cgroup: str | None) -> Record:
        """What the supervisor itself needs to know; see `protocol`."""
        limit = job.spec.time_limit
        return {
            "id": job.id,
            "cgroup": cgroup,
            "child_policy": job.spec.child_policy.value,
            "time_limit": None if limit is None else limit.total_seconds(),
            "oom_group": job.limits.oom_group is True,
            "output": {
                "mode": job.spec.output.value,
                "limit": job.output_limit.size,
                "policy": job.output_limit.policy,
                "reserve": self.output_reserve,
                "splice": self.splice,
                "holes": self.holes,
            },
            "sync": self.sync,
        }
