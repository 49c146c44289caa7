"""Where a job is, and which changes there are."""

from __future__ import annotations

from enum import StrEnum


class JobState(StrEnum):
    """Where a job is. Why it ended is its `Cause`."""

    RUNNING = "RUNNING"
    STOPPED = "STOPPED"
    FINISHED = "FINISHED"
    LOST = "LOST"

    @property
    def ended(self) -> bool:
        """Whether nothing changes any more."""
        return not TRANSITIONS[self]


class Cause(StrEnum):
    """The one reason why a job ended."""

    EXITED = "EXITED"
    SIGNALED = "SIGNALED"
    OOM_KILLED = "OOM_KILLED"
    TIMED_OUT = "TIMED_OUT"
    STOPPED = "STOPPED"
    OUTPUT_LIMIT = "OUTPUT_LIMIT"
    LOST = "LOST"

    @property
    def state(self) -> JobState:
        """The state of a job that ended for this reason."""
        return TRANSITIONS[JobState.RUNNING][self]


# The table is the state machine: state -> cause -> next state. The diagram in docs/design.md is generated from it.
TRANSITIONS: dict[JobState, dict[Cause, JobState]] = {
    JobState.RUNNING: {
        Cause.EXITED: JobState.FINISHED,
        Cause.SIGNALED: JobState.FINISHED,
        Cause.OOM_KILLED: JobState.FINISHED,
        Cause.TIMED_OUT: JobState.FINISHED,
        Cause.OUTPUT_LIMIT: JobState.FINISHED,
        Cause.STOPPED: JobState.STOPPED,
        Cause.LOST: JobState.LOST,
    },
    JobState.STOPPED: {},
    JobState.FINISHED: {},
    JobState.LOST: {},
}
