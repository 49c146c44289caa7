"""A scope of systemd's for our supervisors and jobs.

A service that hands controllers on to groups of its own cannot be started again by systemd while jobs live in them
(it would put the new process into the service's group, which is no leaf any more). A scope is never started
again: it is there as long as a process is in it.
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from jobworker.linux import kernel_file
from jobworker.linux.placement import LEAF, group_of

_RUN = "/usr/bin/systemd-run"
_PROPERTIES = ("Delegate=yes", "OOMPolicy=continue", "TasksMax=infinity")
_FORGET = "--collect"  # also a scope that has failed, which none of its name could follow
_READY = b"in\n"
_KEEP = ["/bin/sh", "-c", "echo in; read line"]  # until its input is closed, also by a kill of this process
_PATIENCE = 30.0  # seconds; systemd takes some milliseconds, unless the machine has just booted or is very busy
_ATTEMPTS = 3  # a scope can go between the look and the step into it, when the last job in it ends; once at a time


class _Keeper(NamedTuple):
    """A process that does nothing but be in the scope."""

    pid: int
    input: int
    output: int


@contextmanager
def in_scope(slice_: Path, name: str) -> Generator[Path]:
    """Have a scope of this name in a slice, the present one if there is one; yields its group, which has a leaf.

    It stays as long as a process is in it. It blocks while systemd works. Raises `OSError` that says what systemd said.
    """
    keeper = _enter(slice_, name)
    try:
        group = group_of(keeper.pid)
        assert group is not None  # noqa: S101 - it has been moved there
        yield group.parent
    finally:
        _leave(keeper)


def _enter(slice_: Path, name: str) -> _Keeper:
    properties = [f"--property={one}" for one in _PROPERTIES]
    manager = "--system" if os.geteuid() == 0 else "--user"
    scope = ["--scope", f"--slice={slice_.name}", f"--unit={name}", *properties]
    run = [_RUN, manager, "--quiet", _FORGET, *scope, "--", *_KEEP]
    problem: OSError | None = None
    for _ in range(_ATTEMPTS):
        keeper = _spawn(_KEEP)
        try:
            _move(keeper, slice_ / f"{name}.scope")
        except OSError:  # there is none, or not any more
            _leave(keeper)
        else:
            return keeper
        keeper = _spawn(run)
        said = _read(keeper)
        try:
            if said != _READY:
                raise OSError(0, f"{_RUN}: {said.decode(errors='replace').strip() or 'no answer'}")  # noqa: TRY301 - as what _move raises
            group = group_of(keeper.pid)
            if group is None:
                raise OSError(0, "the scope's group cannot be seen")  # noqa: TRY301 - the same
            _move(keeper, group)
        except OSError as error:
            _leave(keeper)
            problem = error
        else:
            return keeper
    assert problem is not None  # noqa: S101 - each round has set it
    raise problem


def _spawn(command: list[str]) -> _Keeper:
    """Not by fork: this process may have threads."""
    their_input, ours = os.pipe2(os.O_CLOEXEC)
    output, their_output = os.pipe2(os.O_CLOEXEC)
    try:
        pid = os.posix_spawn(
            command[0],
            command,
            {"XDG_RUNTIME_DIR": f"/run/user/{os.geteuid()}"},
            file_actions=[
                (os.POSIX_SPAWN_DUP2, their_input, 0),
                (os.POSIX_SPAWN_DUP2, their_output, 1),
                (os.POSIX_SPAWN_DUP2, their_output, 2),
            ],
            setpgroup=0,  # Ctrl-C is for the server
        )
    except OSError:
        os.close(ours)
        os.close(output)
        raise
    finally:
        os.close(their_input)
        os.close(their_output)
    return _Keeper(pid, ours, output)


def _read(keeper: _Keeper) -> bytes:
    poller = select.poll()
    poller.register(keeper.output, select.POLLIN)
    return os.read(keeper.output, 4096) if poller.poll(_PATIENCE * 1000) else b""


def _move(keeper: _Keeper, scope: Path) -> None:
    leaf = scope / LEAF
    leaf.mkdir(exist_ok=True)
    kernel_file.write(f"{leaf}/cgroup.procs", str(keeper.pid))


def _leave(keeper: _Keeper) -> None:
    os.close(keeper.input)
    os.close(keeper.output)
    os.kill(keeper.pid, signal.SIGKILL)
    os.waitpid(keeper.pid, 0)
