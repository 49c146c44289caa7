"""What a start and a mebibyte of output cost, in system calls: unlike times, their numbers hold on every machine.

The bounds are what was counted and a little room. Calls that depend on who was scheduled when are left out (futex) or
have more of it. Whoever makes the program do more on purpose raises them; whoever did not mean to finds out here.
"""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import tempfile
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import pytest

from jobworker.client import AsyncClient
from jobworker.executors.standbys import COUNT
from jobworker.linux import process
from jobworker.runtime.spawner import SPARE
from tests.support.machine import Machine, spawner_of, supervisor_of
from tests.support.polling import until
from tests.support.workers import Gate

pytestmark = pytest.mark.system

STARTS = 20
STATUSES = 100
MIB = 64  # of output
MIB_BYTES = 1024 * 1024

FILES_LOOKED_AT = "stat lstat fstat newfstatat statx access faccessat faccessat2 getdents64 readlink readlinkat"
NAMES = "mkdir mkdirat rename renameat renameat2 unlink unlinkat rmdir link linkat"
DESCRIPTORS = "open openat socket accept4 pipe2 dup dup2 dup3"
SYNCS = "fsync fdatasync sync_file_range"
READ, WRITTEN = "read readv pread64 preadv", "write writev pwrite64 pwritev"
MEMORY = "brk mmap munmap mprotect mremap"

# Of each kind the calls that one job may cost, from the request to the end of all that it left behind: those of the
# spawner, the supervisor and the job itself (/bin/true, which loads libc), of one thread each and always the same ...
A_START = {
    "processes made, programs executed": (2, "clone clone3 fork vfork execve"),
    "syncs": (1, SYNCS),
    "names made, moved and removed": (5, NAMES),
    "descriptors made": (27, DESCRIPTORS),
    "files looked at": (8, FILES_LOOKED_AT),
    "written": (7, WRITTEN),
    "read": (19, READ),
    "memory": (14, MEMORY),
}
# ... and those of the server, whose threads wake each other and whose database now and then moves its log.
A_START_SERVED = {
    "syncs": (0.2, SYNCS),
    "names made, moved and removed": (0.2, NAMES),
    "descriptors made": (11, DESCRIPTORS),
    "files looked at": (9, FILES_LOOKED_AT),
    "written": (52, WRITTEN),
    "read": (17, READ),
}
# The server's for telling of one job that runs. A thread that is asked writes once and reads once more.
A_STATUS = {
    "files looked at": (1.2, FILES_LOOKED_AT),
    "descriptors made": (1.2, DESCRIPTORS),
    "written": (7.4, WRITTEN),
    "read": (3.4, READ),
    "messages": (3.5, "sendmsg recvmsg"),
}
# The server's for one MiB of output that is there and followed by one.
A_MIB_FOLLOWED = {
    "read": (4, READ),
    "sent": (4, "sendmsg sendto"),
    "files looked at": (2, FILES_LOOKED_AT),
    "memory": (2, MEMORY),
    "waits": (12, "epoll_wait epoll_pwait poll"),
}
# The supervisor's for one MiB. It moves 256 KiB and more at a time: it is the one that strace slows down, so that its
# pipe is full.
A_MIB_KEPT = {
    "moved": (12, "splice read write pwrite64"),
    "waits": (12, "poll wait4"),
    "memory": (1, MEMORY),
}

PROCESS_LINE = re.compile(r"strace: Process (\d+) attached")


async def test_calls_of_a_start(machine: Machine) -> None:
    """A job that does nothing costs no more system calls than it is known to."""
    with machine.server() as server:
        async with machine.client() as client:
            await client.run(["/bin/true"])  # whatever is made on first use
            spawner = spawner_of(server)
            await only_waiting_ones_are_left(spawner)
            job = await client.start(["sleep", "600"])
            # So that from now on there is one supervisor more than stand by.
            await only_waiting_ones_are_left(spawner, besides=1)
            await client.stop(job.id, grace=0)
            await only_waiting_ones_are_left(spawner)
            with (
                counted([spawner, *process.descendants(spawner)], machine.directory) as calls,
                counted([server.process.pid], machine.directory) as served,
            ):
                for _ in range(STARTS):
                    await client.run(["/bin/true"])
                await only_waiting_ones_are_left(spawner)
    within(A_START, calls, STARTS)
    assert sum(calls[name] for name in SYNCS.split()) == STARTS, "the end of a job is synced before it is told"
    within(A_START_SERVED, served, STARTS)


async def test_calls_of_a_status(machine: Machine) -> None:
    """To tell of a running job, the server asks no thread of its own, and looks at one file: the job's output."""
    with machine.server() as server:
        async with machine.client() as client:
            job = await client.start(["sleep", "600"])
            await client.get(job.id)
            with counted([server.process.pid], machine.directory) as calls:
                for _ in range(STATUSES):
                    await client.get(job.id)
            await client.stop(job.id, grace=0)
    within(A_STATUS, calls, STATUSES)


async def test_calls_and_copies_of_kept_output(machine: Machine) -> None:
    """Output goes into its file without passing through the supervisor, and a MiB of it takes a few calls."""
    with machine.server():
        async with machine.client() as client, big_output(client) as (job_id, write):
            supervisor = supervisor_of(job_id)
            before = copied_bytes(supervisor)
            with counted([supervisor], machine.directory) as calls:
                await write()
            assert copied_bytes(supervisor) - before <= MIB * MIB_BYTES / 100
    within(A_MIB_KEPT, calls, MIB)


async def test_calls_and_copies_of_followed_output(machine: Machine) -> None:
    """The server reads output once for a follower, in large pieces, and looks for no more of it than it has to."""
    with machine.server() as server:
        async with machine.client() as client:
            async with big_output(client) as (job_id, write):
                await write()
            await client.wait(job_id)
            before = copied_bytes(server.process.pid)
            with counted([server.process.pid], machine.directory) as calls:
                assert await received(client, job_id) > MIB * MIB_BYTES
            assert copied_bytes(server.process.pid) - before <= 1.02 * MIB * MIB_BYTES
    within(A_MIB_FOLLOWED, calls, MIB)


def within(bounds: Mapping[str, tuple[float, str]], calls: Counter[str], times: int) -> None:
    """Fail where there were more calls than may be, and say of which kind and how many."""
    counts = {kind: sum(calls[name] for name in names.split()) / times for kind, (_, names) in bounds.items()}
    assert sum(counts.values()) > 0, "nothing was counted"
    exceeded = {kind: count for kind, count in counts.items() if count > bounds[kind][0]}
    assert not exceeded, f"{exceeded}, of {dict(calls)} in {times}"


@contextmanager
def counted(pids: Collection[int], folder: Path) -> Generator[Counter[str]]:
    """Count the system calls of processes, and of those that they fork; there when the block has ended."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    file = folder / f"calls-{min(pids)}"
    command = ["strace", "--follow-forks", "--summary-only", f"--output={file}", *(f"--attach={pid}" for pid in pids)]
    calls: Counter[str] = Counter()
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as strace:
        try:
            wait_until_attached(strace, set(pids))
            yield calls
        finally:
            strace.send_signal(signal.SIGINT)
            strace.communicate()
    for line in file.read_text().splitlines():
        match line.split():
            case [_, _, _, count, *_, name] if count.isdigit() and name != "total":
                calls[name] += int(count)
            case _:
                continue


def wait_until_attached(strace: subprocess.Popen[str], pids: set[int]) -> None:
    """Return when all are traced; skip the test where the kernel does not let us."""
    assert strace.stderr is not None
    said: list[str] = []
    while pids:
        said.append(strace.stderr.readline())
        if not said[-1] or "not permitted" in said[-1]:
            pytest.skip(f"processes cannot be traced here: {''.join(said)}")
        if line := PROCESS_LINE.match(said[-1]):
            pids.discard(int(line[1]))


async def only_waiting_ones_are_left(spawner: int, *, besides: int = 0) -> None:
    """All stand by that are to, and others are free, but for the supervisors and programs of some jobs that run."""
    waiting = ["jw-spare"] * SPARE + ["jw-standby"] * COUNT

    def left() -> bool:
        names = [name for name in names_below(spawner) if name != "jw-free"]
        return len(names) == len(waiting) + 2 * besides and [name for name in names if name in waiting] == waiting

    await until(left)


def names_below(pid: int) -> list[str]:
    """The names of the processes below one."""
    names: list[str] = []
    for below in process.descendants(pid):
        with suppress(OSError):
            names.append(Path(f"/proc/{below}/comm").read_text().strip())
    return sorted(names)


@asynccontextmanager
async def big_output(client: AsyncClient) -> AsyncGenerator[tuple[str, Callable[[], Awaitable[None]]]]:
    """A job that writes `MIB` of output when the function is called, which returns when all is kept; it ends after."""
    with tempfile.TemporaryDirectory(prefix="jobworker-test-") as folder:
        Path(folder).chmod(0o711)  # for jobs of root's server, which run as nobody
        gate = Gate(Path(folder, "gate"))
        script = f'echo ready; read x <"$0"; head -c {MIB * MIB_BYTES} /dev/zero; echo done; read x <"$0"'
        job = await client.start(["sh", "-c", script, str(gate.path)])
        stream = client.stream(job.id)
        assert (await anext(stream)).data == b"ready\n"

        async def write() -> None:
            gate.open()
            async for chunk in stream:
                if chunk.data.endswith(b"done\n"):
                    return

        yield job.id, write
        gate.open()
        await client.wait(job.id)
        gate.close()


async def received(client: AsyncClient, job_id: str) -> int:
    """How much output comes to one who follows a job."""
    return sum([len(chunk.data) async for chunk in client.stream(job_id)])


def copied_bytes(pid: int) -> int:
    """What a process has read and written so far; what the kernel moved for it without a copy is not in it."""
    lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(("rchar", "wchar")))
