"""What a process does to itself before it becomes a job's program."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

from jobworker.linux import kernel_file, syscalls


class Identity(NamedTuple):
    """The user, the group and the supplementary groups of a process."""

    uid: int
    gid: int
    groups: Sequence[int]


def default_signals() -> None:
    """Give every signal its default disposition, and block all of them.

    A process that does this once can fork children that only have to unblock: ignored signals would stay ignored when
    they execute a program, and the interpreter ignores two (SIGPIPE, SIGXFSZ).
    """
    signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
    for number in signal.valid_signals():
        with suppress(OSError):  # SIGKILL and SIGSTOP
            signal.signal(number, signal.SIG_DFL)


def unblock_signals() -> None:
    """Let every signal through that `default_signals` has blocked."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def give_up_privileges(identity: Identity) -> None:
    """Become another user for good, with no capabilities handed on and no way to gain any.

    Without the right to change users it has to be the present one already. Raises `OSError`.
    """
    if os.geteuid() == 0:
        os.setgroups(list(identity.groups))
        os.setresgid(identity.gid, identity.gid, identity.gid)
        os.setresuid(identity.uid, identity.uid, identity.uid)
    with suppress(OSError):  # kernels before 4.3 have no ambient capabilities
        syscalls.clear_ambient_capabilities()
    syscalls.set_no_new_privileges()


def set_oom_score(adjustment: int) -> None:
    """Tell the kernel how willing to be to kill this process when memory runs out: -1000 never, 1000 first."""
    kernel_file.write("/proc/self/oom_score_adj", str(adjustment))
