"""The pieces beside the daemon, each on its own."""

from __future__ import annotations

import os
import resource
import select
import socket
import stat
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

from jobworker.runtime import jobdir, protocol
from jobworker.runtime.control import Control
from jobworker.runtime.jobdir import JobDir
from jobworker.runtime.protocol import Message


@pytest.fixture
def directory(tmp_path: Path) -> Generator[JobDir]:
    """A job directory, at a path that is too long for a socket's."""
    long = tmp_path / ("x" * 120)
    long.mkdir()
    with JobDir.create(long / "job") as directory:
        yield directory


def test_a_record_is_there_whole_or_not_at_all(directory: JobDir) -> None:
    """What is written is read back; what was cut off in the middle is not seen; what is no record is an error."""
    records = Path(f"/proc/self/fd/{directory.fd}/records")
    assert directory.read("exit") is None
    directory.write("exit", {"a": "\udcff\0é"}, sync=True)
    directory.write("spec", {"c": 2}, sync=False)
    assert directory.records() == {"exit": {"a": "\udcff\0é"}, "spec": {"c": 2}}
    assert stat.S_IMODE(records.stat().st_mode) == 0o600
    with records.open("a") as file:
        file.write('{"exit":{"a":"half')
    assert directory.read("exit") == {"a": "\udcff\0é"}
    lock = directory.lock()
    assert lock is not None
    os.close(lock)
    directory.write("exit", {"b": 1}, sync=False)
    assert directory.records() == {"exit": {"b": 1}, "spec": {"c": 2}}
    for wrong in ("", "{", "[]", "5", '"x"', '{"exit": []}'):
        records.write_text(wrong + "\n")
        with pytest.raises(ValueError):  # noqa: PT011 - of whatever kind json raises
            directory.read("exit")


def test_room_for_a_record_can_be_reserved(directory: JobDir) -> None:
    """It takes space of the disk, and does not change what is read."""
    directory.write("spec", {"a": 1}, sync=False)
    before = os.stat("records", dir_fd=directory.fd)
    directory.reserve()
    after = os.stat("records", dir_fd=directory.fd)
    assert after.st_size == before.st_size
    assert after.st_blocks * 512 >= before.st_size + 4096
    assert directory.records() == {"spec": {"a": 1}}


def test_a_record_that_does_not_fit_leaves_those_before_it(directory: JobDir) -> None:
    """Here there is room for a part of it; once there is for all of it, it can be written."""
    code = f"""
import resource
from jobworker.runtime.jobdir import JobDir
directory = JobDir({directory.fd})
directory.write("spec", {{"a": 1}}, sync=False)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
try:
    directory.write("exit", {{"b": "x" * 2000}}, sync=False)
except OSError:
    pass
else:
    raise AssertionError("it was written")
assert directory.records() == {{"spec": {{"a": 1}}}}
directory.write("exit", {{"b": 2}}, sync=False)
"""
    subprocess.run([sys.executable, "-c", code], check=True, pass_fds=[directory.fd])
    assert directory.records() == {"spec": {"a": 1}, "exit": {"b": 2}}


def test_a_lock_lasts_as_long_as_its_last_descriptor(directory: JobDir) -> None:
    """Also where a copy of it has been sent to another process, and no longer."""
    lock = directory.lock()
    assert lock is not None
    assert directory.lock() is None
    with subprocess.Popen(["cat"], pass_fds=[lock], stdin=subprocess.PIPE) as holder:
        os.close(lock)
        assert directory.lock() is None
        holder.kill()
    again = directory.lock()
    assert again is not None
    os.close(again)


def test_a_control_socket_can_be_taken_over(directory: JobDir) -> None:
    """A dead supervisor's socket refuses; the next one stands in its place; only its owner may enter."""
    with pytest.raises(FileNotFoundError):
        directory.connect()
    directory.listen().close()
    with pytest.raises(ConnectionRefusedError):
        directory.connect()
    before = os.umask(0)
    try:
        with directory.listen() as listener, directory.connect() as connection:
            assert stat.S_IMODE(os.stat("control", dir_fd=directory.fd).st_mode) == 0o600
            accepted, _ = listener.accept()
            with accepted:
                assert protocol.peer_uid(accepted) == os.geteuid()
                assert connection.fileno() >= 0
    finally:
        os.umask(before)


class Talk:
    """A `Control` with its poll loop, and connections to it."""

    def __init__(self, directory: JobDir, listener: socket.socket) -> None:
        self.directory = directory
        self.poller = select.poll()
        self.control = Control(listener, self.poller)

    def connect(self) -> socket.socket:
        """A connection that has been accepted."""
        connection = self.directory.connect()
        connection.settimeout(10)
        self.serve()
        return connection

    def serve(self) -> None:
        """Handle whatever has come."""
        while ready := self.poller.poll(0):
            for fd, _ in ready:
                self.control.handle(fd, accept)


def accept(request: Message) -> Message:
    """Take stops and signals as they are, as a supervisor does; anything else is an error."""
    return {"ok": {"stop": True, "signal": False}[request["op"]]}


@pytest.fixture
def talk(directory: JobDir) -> Generator[Talk]:
    """A supervisor's side of its control socket."""
    with directory.listen() as listener:
        talk = Talk(directory, listener)
        yield talk
        talk.serve()  # let it see that the others have gone


def messages(connection: socket.socket) -> list[Message]:
    """All that has arrived at a connection."""
    found: list[Message] = []
    connection.setblocking(False)
    while True:
        try:
            packet = connection.recv(protocol.MAX_MESSAGE_BYTES)
        except BlockingIOError:
            return found
        if not packet:
            return [*found, {"closed": True}]
        found.append(protocol.decode(packet))


def test_a_newcomer_is_told_the_present_state(talk: Talk) -> None:
    """The last message of each event, also to one who connects just before the end."""
    talk.control.tell("started", time="t")
    early = talk.connect()
    late = talk.directory.connect()  # not accepted yet
    talk.control.tell("ended")
    started, ended = {"event": "started", "time": "t"}, {"event": "ended"}
    assert messages(early) == [started, ended]
    assert messages(late) == [started, ended]
    early.close()
    late.close()
    talk.serve()


def test_requests_are_answered_by_their_number(talk: Talk) -> None:
    """Each with what came of it."""
    with talk.connect() as connection:
        for number, operation in enumerate(("stop", "signal", "stop")):
            connection.send(protocol.encode({"op": operation, "n": number}))
        talk.serve()
        assert messages(connection) == [
            {"reply": 0, "ok": True},
            {"reply": 1, "ok": False},
            {"reply": 2, "ok": True},
        ]


@pytest.mark.parametrize("packet", [b"{", b"[]", b"{}", b'{"op": "dance", "n": 1}', b"\xff" * 20_000, b'{"n": 1}'])
def test_what_makes_no_sense_harms_nobody(talk: Talk, packet: bytes) -> None:
    """A job is not lost for a request that its supervisor does not understand; others are served on."""
    with talk.connect() as strange, talk.connect() as other:
        strange.send(packet)
        talk.serve()
        assert {"reply": 1, "ok": True} not in messages(strange)
        other.send(protocol.encode({"op": "stop", "n": 7}))
        talk.serve()
        assert messages(other) == [{"reply": 7, "ok": True}]
    talk.serve()


def test_a_daemon_that_has_gone_or_does_not_read_harms_nobody(talk: Talk) -> None:
    """Telling an event drops it; that its descriptor polled ready in the same round is no error."""
    gone, deaf, good = talk.connect(), talk.connect(), talk.connect()
    gone.close()
    ready = [fd for fd, _ in talk.poller.poll(0)]
    for _ in range(3000):  # more than a socket's buffer takes
        talk.control.tell("event", text="x" * 100)
        messages(good)
    for fd in ready:
        talk.control.handle(fd, accept)
    good.send(protocol.encode({"op": "stop", "n": 1}))
    talk.serve()
    assert messages(good)[-1] == {"reply": 1, "ok": True}
    assert messages(deaf)[-1] == {"closed": True}
    deaf.close()
    good.close()
    talk.serve()


def test_records_are_written_by_who_holds_them_as_by_anybody(directory: JobDir) -> None:
    """The lock is held meanwhile, room is reserved, and what others write is kept."""
    directory.hold()
    directory.write("spec", {"a": 1}, sync=True)
    directory.reserve()
    with JobDir.open(f"/proc/self/fd/{directory.fd}") as other:
        assert other.lock() is None
        other.write("started", {"b": 2}, sync=False)
    directory.write("exit", {"c": 3}, sync=False)
    assert directory.records() == {"spec": {"a": 1}, "started": {"b": 2}, "exit": {"c": 3}}


def test_a_message_that_has_lost_its_descriptor_is_an_error() -> None:
    """It is one whose receiver may open no more files."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        socket.send_fds(ours, [protocol.encode({"op": "supervise"})], [ours.fileno()])
        free = os.dup(ours.fileno())
        os.close(free)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
        try:
            with pytest.raises(OSError, match="descriptors"):
                protocol.receive(theirs)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def content(directory: JobDir) -> bytes:
    """The output of a job."""
    fd = os.open("output", os.O_RDONLY, dir_fd=directory.fd)
    try:
        return os.pread(fd, 1000, 0)
    finally:
        os.close(fd)


# A supervisor that serves one daemon, which has said all before: to stand by for a job, and to run it.
SUPERVISE = """
import os, socket, sys
from datetime import UTC, datetime, timedelta
from jobworker.core.job import Job
from jobworker.core.records import job_record
from jobworker.core.spec import JobSpec
from jobworker.linux import sandbox
from jobworker.runtime import children, jobdir, protocol, supervisor

state, script = sys.argv[1:]
supervisor.DEFAULT_GRACE = timedelta(seconds=0.1)
spec = JobSpec(argv=("sh", "-c", script), time_limit=timedelta(seconds=0.1))
record = job_record(Job(id="x", owner="ada", spec=spec, create_time=datetime.now(UTC)))
launch = dict(env={"PATH": "/bin:/usr/bin"}, cgroup=None, boot_id="", sync=True)
launch |= dict(uid=os.geteuid(), gid=os.getegid(), groups=[])
sandbox.default_signals()
output = dict(mode="COMBINED", limit=None, policy=None, reserve=0, splice=True, holes=True)
job = dict(id="x", cgroup=None, child_policy="KILL", time_limit=0.1, oom_group=True, output=output, sync=True)
ours, daemon = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
daemon.send(protocol.encode({"op": "stand_by", "id": "x", "cgroup": None}))
file = os.memfd_create("record")
os.write(file, jobdir.line_of(jobdir.SPEC, {"job": record, "launch": launch}))
socket.send_fds(daemon, [protocol.encode({"op": "start", "job": job})], [file])
children.heed()
"""


def supervise(state: Path, script: str, code: str = "") -> None:
    """Run a supervisor until it ends; `code` is what comes before it begins."""
    for name in (jobdir.STANDBY, jobdir.JOBS):
        (state / name).mkdir()
    code = f"{SUPERVISE}\n{code}\nsupervisor.supervise(ours, state)"
    subprocess.run([sys.executable, "-c", code, str(state), script], check=True)


def test_a_job_deaf_to_the_signal_of_its_time_limit_is_killed_after_the_grace(tmp_path: Path) -> None:
    """By the supervisor alone, with nobody connected; here with a grace of 0.1 s instead of 10."""
    supervise(tmp_path, "trap 'echo deaf' TERM; while :; do sleep 0.01; done")
    with JobDir.open(tmp_path / jobdir.JOBS / "x") as directory:
        record = directory.read("exit")
        assert record is not None
        assert (record["end"]["cause"], record["end"]["signal"]) == ("TIMED_OUT", 9)
        assert b"deaf\n" in content(directory)


def test_a_start_that_the_daemon_has_given_up_is_not_made_up_for(tmp_path: Path) -> None:
    """By a supervisor that had been stopped meanwhile: it finds the request, and that nobody is there any more."""
    given_up = """
from jobworker.runtime.standby import wait_to_stand_by
standby = wait_to_stand_by(ours, state)
daemon.close()
assert standby.wait() is None
"""
    supervise(tmp_path, f"touch {tmp_path}/ran", given_up)
    assert not (tmp_path / "ran").exists()
    assert not list((tmp_path / jobdir.JOBS).iterdir())


def test_nobody_stands_by_for_a_daemon_that_has_gone(tmp_path: Path) -> None:
    """Its requests may be there still; a directory made for them would stay for as long as the next daemon runs."""
    supervise(tmp_path, f"touch {tmp_path}/ran", "daemon.close()")
    assert not (tmp_path / "ran").exists()
    assert not list((tmp_path / jobdir.JOBS).iterdir())
    assert not list((tmp_path / jobdir.STANDBY).iterdir())


def test_a_request_that_comes_after_the_end_of_its_job_harms_nobody(tmp_path: Path) -> None:
    """The supervisor has no job any more; and the daemon may be gone before it hears that."""
    late = """
ours, daemon = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
daemon.send(protocol.encode({"op": "signal", "n": 1, "signal": 15}))
daemon.close()
"""
    supervise(tmp_path, "true", late)
    assert not list((tmp_path / jobdir.JOBS).iterdir())
