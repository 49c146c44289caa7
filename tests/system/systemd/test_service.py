"""The packaged unit under a real systemd."""

from __future__ import annotations

import re
import secrets
import shlex
import socket
import subprocess
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from jobworker.client import AsyncClient
from jobworker.core.limits import Limits
from jobworker.core.state import Cause, JobState
from tests.support.kernel import group_of, groups_of, pids_in
from tests.support.machine import Script, kill, supervisor_of
from tests.support.pki import Authority
from tests.support.server import serve_command
from tests.support.workers import PROJECT, gone

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]  # each starts the server several times

UNITS = Path("/run/systemd/system")


class Service:
    """The server as an installed unit; `address` stays the same."""

    def __init__(self, directory: Path) -> None:
        self.authority = Authority()
        (directory / "ca.crt").write_bytes(self.authority.certificate)
        self.authority.server().write(directory, "server")
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.address = f"127.0.0.1:{probe.getsockname()[1]}"
        self.name = f"jobworker-test-{secrets.token_hex(4)}"
        flags = ("--audit-log", "off", "--listen", self.address)
        command = serve_command(directory, *flags)
        text = (PROJECT / "packaging" / "jobworker.service").read_text()
        text = re.sub(r"^ExecStart=.*?(?P<mode>( --cgroups \w+)?)$", _started_by(command), text, flags=re.MULTILINE)
        text = text.replace("StateDirectory=jobworker", f"StateDirectory={self.name}")
        self._file = UNITS / f"{self.name}.service"
        self._file.write_text(text)
        self.systemctl("daemon-reload")

    def systemctl(self, *arguments: str) -> str:
        """Run systemctl; what it said. A failure is shown with the unit's log."""
        result = subprocess.run(["systemctl", *arguments], capture_output=True, text=True, check=False)
        if result.returncode:
            command = ["journalctl", "--no-pager", "--lines=50", f"--unit={self.name}"]
            log = subprocess.run(command, capture_output=True, text=True, check=False).stdout
            pytest.fail(f"systemctl {shlex.join(arguments)}: {result.stderr}\n{log}")
        return result.stdout.strip()

    def main_pid(self) -> int:
        """The server's pid."""
        return int(self.systemctl("show", "--property=MainPID", "--value", self.name))

    @asynccontextmanager
    async def client(self) -> AsyncGenerator[AsyncClient]:
        """A client of the service."""
        credential = self.authority.client("alice", roles="user")
        ca = self.authority.certificate
        async with AsyncClient(self.address, ca=ca, cert=credential.certificate, key=credential.key) as client:
            yield client

    def remove(self) -> None:
        """Stop it and forget it."""
        self.systemctl("stop", self.name)
        self._file.unlink()
        self.systemctl("daemon-reload")


def _started_by(command: list[str]) -> str:
    return f"ExecStart={shlex.join(command)}\\g<mode>".replace("%", "%%")


@pytest.fixture
def service(tmp_path: Path) -> Generator[Service]:
    """An installed service that has not been started."""
    if not UNITS.is_dir():
        pytest.skip("systemd does not run here; test_vm.py runs this in a VM")
    service = Service(tmp_path)
    yield service
    service.remove()


async def test_jobs_do_not_notice_what_happens_to_the_service(service: Service, script: Script) -> None:
    """Restarted, killed, stopped and started: a job stays the same processes in the same group, and loses no output."""
    service.systemctl("start", service.name)
    async with service.client() as client:
        job = await client.start(script.argv)
        tree = await client.start(["sh", "-c", "setsid sleep 1000 & echo up; wait"])
        stream = client.stream(job.id)
        script.write("one")
        assert (await anext(stream)).data == b"one\n"
        assert (await anext(client.stream(tree.id))).data == b"up\n"

        def places() -> list[tuple[Path, list[int], int]]:
            return [(group_of(each), pids_in(group_of(each)), supervisor_of(each)) for each in (job.id, tree.id)]

        before, first = places(), service.main_pid()
        service.systemctl("restart", service.name)
        second = service.main_pid()
        assert second != first
        assert places() == before
        kill(second)
        script.write("two")
        assert (await anext(stream)).data == b"two\n"  # from the server that systemd has started in its place
        assert service.main_pid() not in (first, second)
        assert places() == before
        service.systemctl("stop", service.name)
        assert places() == before
        script.write("three")
        script.end()
        service.systemctl("start", service.name)
        end = (await client.wait(job.id)).end
        assert end is not None
        assert (end.exit_code, end.output_bytes) == (7, len("one two three "))
        assert (await client.stop(tree.id)).state is JobState.STOPPED
        gone([pid for _, pids, _ in before for pid in pids])
        assert groups_of(job.id) + groups_of(tree.id) == []


async def test_the_server_outlives_the_scope_of_its_jobs(service: Service) -> None:
    """A stop of the scope ends the jobs and nothing else: the next one gets a new scope, also from the next server."""
    service.systemctl("start", service.name)
    async with service.client() as client:
        job = await client.start(["sleep", "1000"])
        scope, server = group_of(job.id).parent.parent, service.main_pid()
        service.systemctl("stop", scope.name)
        end = (await client.wait(job.id)).end
        assert end is not None
        assert (end.cause, end.signal) == (Cause.SIGNALED, 15)
        assert not scope.exists()
        job = await client.start(["sleep", "1000"], limits=Limits(cpuset="0", pids=20))
        assert group_of(job.id).parent.parent == scope
        service.systemctl("stop", scope.name)
        await client.wait(job.id)
        assert service.main_pid() == server
        service.systemctl("restart", service.name)
        job = await client.start(["sleep", "1000"])
        assert group_of(job.id).parent.parent == scope
        assert (await client.stop(job.id)).state is JobState.STOPPED


@pytest.fixture
def impatient(service: Service) -> Generator[Service]:
    """A service whose systemd kills what has not ended a second after it was told to."""
    file = Path("/run/systemd/system.conf.d/impatient.conf")
    file.parent.mkdir(exist_ok=True)
    file.write_text("[Manager]\nDefaultTimeoutStopSec=1s\n")
    service.systemctl("daemon-reload")
    yield service
    file.unlink()
    service.systemctl("daemon-reload")


async def test_a_scope_that_failed_leaves_nothing_that_keeps_the_next_from_starting(impatient: Service) -> None:
    """A job that does not end when it is told to is killed with its supervisor, and lost."""
    impatient.systemctl("start", impatient.name)
    async with impatient.client() as client:
        job = await client.start(["sh", "-c", "trap '' TERM; echo up; while :; do sleep 1; done"])
        assert (await anext(client.stream(job.id))).data == b"up\n"
        impatient.systemctl("stop", group_of(job.id).parent.parent.name)
        assert (await client.wait(job.id)).state is JobState.LOST
        assert (await client.run(["true"])).job.state is JobState.FINISHED
        impatient.systemctl("restart", impatient.name)
        assert (await client.run(["true"])).job.state is JobState.FINISHED
