"""Processes and kernel interfaces, tried on real ones."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from jobworker.linux import process
from jobworker.linux.cgroup import Cgroup
from jobworker.linux.placement import own_base
from jobworker.linux.process import ProcessId


def test_a_process_is_known_beyond_its_pid() -> None:
    """Its start and the boot belong to it; one that is gone has no identity."""
    with subprocess.Popen(["sleep", "4301"]) as child:
        first = process.identify(child.pid)
        assert first == process.identify(child.pid)
        assert first.boot_id == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        assert first.start_ticks >= process.identify(os.getpid()).start_ticks
        child.kill()
    with pytest.raises(ProcessLookupError):
        process.identify(child.pid)


def test_a_program_may_be_called_anything(tmp_path: Path) -> None:
    """A name of spaces and parentheses does not shift what is read of a process."""
    program = tmp_path / ") R 1 (x"
    program.symlink_to("/bin/sleep")
    with subprocess.Popen([str(program), "4302"]) as child:
        assert process.identify(child.pid).start_ticks > 0
        assert child.pid in process.descendants(os.getpid())
        child.kill()


def test_descendants_are_all_but_the_dead() -> None:
    """Children and their children, in whatever session; no zombie, nobody else."""
    script = "setsid sleep 4303 & sleep 4304 & echo ready; wait"
    with subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE) as shell, subprocess.Popen(["true"]) as dead:
        assert shell.stdout is not None
        shell.stdout.readline()
        os.waitid(os.P_PID, dead.pid, os.WEXITED | os.WNOWAIT)  # a zombie from here on
        found = process.descendants(os.getpid())
        assert shell.pid in found
        assert len([pid for pid in process.descendants(shell.pid) if pid in found]) == 2
        assert dead.pid not in found
        assert os.getpid() not in found
        for pid in found:
            if pid != shell.pid:
                os.kill(pid, signal.SIGKILL)


def test_a_session_is_found_by_its_leader_even_when_that_is_gone() -> None:
    """Its members are; but a pid that is somebody else's now leads to nobody."""
    script = "sleep 4305 & echo $!"
    with subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE, start_new_session=True) as shell:
        assert shell.stdout is not None
        leader = process.identify(shell.pid)
        child = int(shell.stdout.readline())
        shell.wait()
    assert process.in_session_of(leader) == [child]
    os.kill(child, signal.SIGKILL)
    with subprocess.Popen(["sleep", "4306"], start_new_session=True) as other:
        assert process.in_session_of(process.identify(other.pid)) == [other.pid]
        reused = ProcessId(other.pid, process.identify(other.pid).start_ticks - 1, leader.boot_id)
        assert process.in_session_of(reused) == []
        other.kill()


def test_a_mark_in_the_environment_is_found_whole() -> None:
    """The very entry: not one that only begins or ends alike."""
    with (
        subprocess.Popen(["sleep", "4307"], env={"MARK": "one"}) as marked,
        subprocess.Popen(["sleep", "4308"], env={"MARK": "one2", "XMARK": "one"}) as other,
    ):
        assert process.with_environment(b"MARK=one") == [marked.pid]
        marked.kill()
        other.kill()


needs_cgroup = pytest.mark.skipif(own_base() is None, reason="no cgroup v2 that this user may make groups in")


@needs_cgroup
def test_a_cgroup_holds_kills_and_lets_go() -> None:
    """All that is born in it is in it, also below it; one kill ends all; then it can be removed, twice even."""
    place = own_base()
    assert place is not None
    group = Cgroup(place / f"jobworker-test-{os.getpid()}")
    group.create()
    try:
        assert not group.populated
        below = Cgroup(f"{group.path}/below")
        below.create()
        with subprocess.Popen(["sh", "-c", "read x; sleep 4309 & setsid sleep 4310 & wait"], stdin=-1) as shell:
            assert shell.stdin is not None
            below.add(shell.pid)
            shell.stdin.write(b"\n")
            shell.stdin.flush()
            while len(group.processes()) < 3:
                select.select([], [], [], 0.002)
            assert group.populated
            assert not group.remove()
            events = group.open_events()
            poller = select.poll()
            poller.register(events, select.POLLPRI)
            os.pread(events, 100, 0)
            group.kill()
            assert poller.poll(30_000), "the kernel tells when the group has become empty"
            assert not group.populated
            assert group.processes() == []
            os.close(events)
    finally:
        while not group.remove():
            select.select([], [], [], 0.005)
    assert group.remove()
    assert not group.populated
    group.kill()  # a job of root's may have removed it


def test_signals_ignored_by_an_interpreter_are_not_ignored_by_what_it_executes() -> None:
    """After `default_signals` and `unblock_signals` no signal is ignored or blocked, whatever came before."""
    code = """
import os, signal
for number in (signal.SIGHUP, signal.SIGINT, signal.SIGPIPE, 64):
    signal.signal(number, signal.SIG_IGN)
from jobworker.linux import sandbox, syscalls
sandbox.default_signals()
signal.raise_signal(signal.SIGUSR1)  # blocked for now: it would end this process
assert signal.SIGUSR1 in signal.sigpending()
if os.fork() == 0:
    syscalls.unblock_signals()
    os.execvp("grep", ["grep", "-E", "SigBlk|SigIgn", "/proc/self/status"])
os.wait()
"""
    ran = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    values = [int(line.split()[1], 16) for line in ran.stdout.splitlines()]
    assert len(values) == 2
    # glibc's two internal signals are beyond anybody's reach (SIGCANCEL, SIGSETXID)
    assert all(value & ~(0b11 << 31) == 0 for value in values)
