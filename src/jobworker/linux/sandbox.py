"""What a process does to itself before it, or one that it forks, becomes a job's program."""

from __future__ import annotations

import signal
from contextlib import suppress

from jobworker.linux import kernel_file, syscalls


def default_signals() -> None:
    """Give every signal its default disposition, and block all of them.

    A process that does this once can fork children that only have to unblock (`syscalls.unblock_signals`): ignored
    signals would stay ignored when they execute a program, and the interpreter ignores two (SIGPIPE, SIGXFSZ).
    """
    signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
    for number in signal.valid_signals():
        with suppress(OSError):  # SIGKILL and SIGSTOP
            signal.signal(number, signal.SIG_DFL)


def forbid_gains() -> None:
    """Hand no capabilities on to what this process and its descendants execute, and let none gain any, for good.

    Raises `OSError`.
    """
    with suppress(OSError):  # kernels before 4.3 have no ambient capabilities
        syscalls.clear_ambient_capabilities()
    syscalls.set_no_new_privileges()


def set_oom_score(adjustment: int) -> None:
    """Tell the kernel how willing to be to kill this process when memory runs out: -1000 never, 1000 first."""
    kernel_file.write("/proc/self/oom_score_adj", str(adjustment))
