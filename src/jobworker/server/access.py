"""Which permission each RPC needs: one table. What is not in it is denied."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from jobworker.auth.policy import Permission


class Hold(StrEnum):
    """Calls that can stay open for as long as their caller likes, by what they are counted as.

    A user may have a bounded number of each: who has reached the bound of watching can still stop a job.
    """

    WATCH = "open streams and waits"
    STOP = "stops under way"


@dataclass(frozen=True, kw_only=True, slots=True)
class Access:
    """What an RPC needs, and what it is counted as if it can stay open for long."""

    permission: Permission
    hold: Hold | None = None


# By the full name of the RPC, as gRPC has it. docs/api.md shows this table. Nothing is open to a certificate without
# a role; health, reflection and GetServerInfo are open to every role.
TABLE: Mapping[str, Access] = {
    "/jobworker.v1.JobService/StartJob": Access(permission=Permission.START),
    "/jobworker.v1.JobService/GetJob": Access(permission=Permission.READ),
    "/jobworker.v1.JobService/ListJobs": Access(permission=Permission.LIST),
    "/jobworker.v1.JobService/StopJob": Access(permission=Permission.STOP, hold=Hold.STOP),
    "/jobworker.v1.JobService/SignalJob": Access(permission=Permission.SIGNAL),
    "/jobworker.v1.JobService/PauseJob": Access(permission=Permission.PAUSE),
    "/jobworker.v1.JobService/ResumeJob": Access(permission=Permission.PAUSE),
    "/jobworker.v1.JobService/UpdateJob": Access(permission=Permission.UPDATE),
    "/jobworker.v1.JobService/GetUsage": Access(permission=Permission.READ),
    "/jobworker.v1.JobService/ListUsages": Access(permission=Permission.READ),
    "/jobworker.v1.JobService/WaitJob": Access(permission=Permission.READ, hold=Hold.WATCH),
    "/jobworker.v1.JobService/StreamOutput": Access(permission=Permission.READ, hold=Hold.WATCH),
    "/jobworker.v1.JobService/DeleteJob": Access(permission=Permission.DELETE),
    "/jobworker.v1.JobService/GetServerInfo": Access(permission=Permission.INFO),
    "/proto.WorkerService/StartJob": Access(permission=Permission.START),
    "/proto.WorkerService/StopJob": Access(permission=Permission.STOP, hold=Hold.STOP),
    "/proto.WorkerService/GetJobStatus": Access(permission=Permission.READ),
    "/proto.WorkerService/GetOutputStream": Access(permission=Permission.READ, hold=Hold.WATCH),
    "/grpc.health.v1.Health/Check": Access(permission=Permission.HEALTH),
    "/grpc.health.v1.Health/List": Access(permission=Permission.HEALTH),
    "/grpc.health.v1.Health/Watch": Access(permission=Permission.HEALTH, hold=Hold.WATCH),
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": Access(
        permission=Permission.REFLECT, hold=Hold.WATCH
    ),
}
