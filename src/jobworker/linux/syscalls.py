"""System calls that the standard library lacks, as plain functions that raise `OSError`. The only user of ctypes."""

from __future__ import annotations

import ctypes
import os
import signal
import struct
import sys
from collections.abc import Iterator

# PyDLL keeps the interpreter lock: the child of clone3 must find it held by the thread that it is a copy of.
_libc = ctypes.PyDLL(None, use_errno=True)

_SYS_CLONE3 = 435
_CLONE_INTO_CGROUP = 0x2_0000_0000
_CLONE_ARGS = struct.Struct("11Q")  # struct clone_args: flags, pidfd, child_tid, parent_tid, exit_signal, stack, ...

_SIG_BLOCK, _SIG_UNBLOCK, _SIG_SETMASK = 0, 1, 2
_SIGSET_BYTES = 128  # sizeof(sigset_t)

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4

_FALLOC_FL_KEEP_SIZE = 0x1
_FALLOC_FL_PUNCH_HOLE = 0x2

IN_MODIFY = 0x2
_INOTIFY_EVENT = struct.Struct("iIII")  # wd, mask, cookie, length of the name


def _checked(result: int, name: str) -> int:
    if result < 0:
        errno = ctypes.get_errno()
        raise OSError(errno, f"{name}: {os.strerror(errno)}")
    return result


def clone_into_cgroup(cgroup_fd: int) -> int:
    """Fork into a cgroup: 0 in the child, its pid in the parent.

    Only from a single-threaded process, and the child has to exec or `_exit` soon: unlike `os.fork`, no at-fork
    handlers run. The cgroup must not be frozen (the call would hang). Raises `OSError`.
    """
    arguments = _CLONE_ARGS.pack(_CLONE_INTO_CGROUP, 0, 0, 0, signal.SIGCHLD, 0, 0, 0, 0, 0, cgroup_fd)
    return _checked(_libc.syscall(_SYS_CLONE3, arguments, ctypes.c_size_t(len(arguments))), "clone3")


def _prctl(option: int, argument: int, name: str) -> None:
    zero = ctypes.c_ulong(0)
    _checked(_libc.prctl(option, ctypes.c_ulong(argument), zero, zero, zero), name)


def set_parent_death_signal(number: int) -> None:
    """Have this process get a signal when its parent dies. Set it after the last change of credentials."""
    _prctl(_PR_SET_PDEATHSIG, number, "prctl PR_SET_PDEATHSIG")


def set_child_subreaper() -> None:
    """Make orphans among this process's descendants its children."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1, "prctl PR_SET_CHILD_SUBREAPER")


def set_no_new_privileges() -> None:
    """Keep this process and its descendants from gaining privileges by executing set-user-ID programs."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1, "prctl PR_SET_NO_NEW_PRIVS")


def clear_ambient_capabilities() -> None:
    """Keep the capabilities of this process from being handed to the program that it executes."""
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, "prctl PR_CAP_AMBIENT_CLEAR_ALL")


def block_signal(number: int) -> None:
    """Block one more signal. In a process of one thread, `signal.pthread_sigmask` with less memory written to."""
    signals = (1 << number - 1).to_bytes(_SIGSET_BYTES, sys.byteorder)
    _checked(_libc.sigprocmask(_SIG_BLOCK, signals, None), "sigprocmask")


def unblock_signal(number: int) -> None:
    """Let one signal through that `block_signal` has blocked."""
    signals = (1 << number - 1).to_bytes(_SIGSET_BYTES, sys.byteorder)
    _checked(_libc.sigprocmask(_SIG_UNBLOCK, signals, None), "sigprocmask")


def unblock_signals() -> None:
    """Let every signal through, likewise."""
    _checked(_libc.sigprocmask(_SIG_SETMASK, bytes(_SIGSET_BYTES), None), "sigprocmask")


def set_process_name(name: str) -> None:
    """Set what `ps -o comm` shows; the kernel keeps 15 bytes."""
    _checked(_libc.prctl(_PR_SET_NAME, name.encode()[:15] + b"\0", 0, 0, 0), "prctl PR_SET_NAME")


def reserve(fd: int, offset: int, length: int) -> None:
    """Have room on the disk for a part of a file, whose size stays as it is."""
    _checked(_libc.fallocate(fd, _FALLOC_FL_KEEP_SIZE, ctypes.c_int64(offset), ctypes.c_int64(length)), "fallocate")


def punch_hole(fd: int, offset: int, length: int) -> None:
    """Give back the disk space of a part of a file, which reads as zeros from then on; the size stays.

    Raises `OSError`, EOPNOTSUPP where the file system cannot do it.
    """
    mode = _FALLOC_FL_PUNCH_HOLE | _FALLOC_FL_KEEP_SIZE
    result = _libc.fallocate(fd, mode, ctypes.c_int64(offset), ctypes.c_int64(length))
    _checked(result, "fallocate FALLOC_FL_PUNCH_HOLE")


def inotify_open() -> int:
    """A new inotify instance as a non-blocking descriptor; the kernel allows 128 a user."""
    return _checked(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC), "inotify_init1")


def inotify_add(instance: int, path: bytes, mask: int) -> int:
    """Watch a file; the same watch descriptor for the same file."""
    return _checked(_libc.inotify_add_watch(instance, path, ctypes.c_uint32(mask)), "inotify_add_watch")


def inotify_remove(instance: int, watch: int) -> None:
    """End a watch."""
    _checked(_libc.inotify_rm_watch(instance, watch), "inotify_rm_watch")


def inotify_watches(buffer: bytes) -> Iterator[int]:
    """The watch descriptors of the events in what was read from an inotify instance; -1 if it has lost events."""
    offset = 0
    while offset < len(buffer):
        watch, _mask, _cookie, length = _INOTIFY_EVENT.unpack_from(buffer, offset)
        yield watch
        offset += _INOTIFY_EVENT.size + length
