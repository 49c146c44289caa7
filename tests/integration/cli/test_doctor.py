"""`jobworker doctor` says what keeps a server from starting, and agrees with the server about it."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from jobworker.linux.placement import mount_point
from tests.support.kernel import missing_controllers
from tests.support.pki import EXPIRED, NOT_YET_VALID, Authority
from tests.support.program import JOBWORKER, Finished, Program
from tests.support.server import Settings, base_environ, running_server, serve_starts, words_of

CONTROLLER_ROWS = {f"controller_{name}" for name in ("cpu", "memory", "io", "pids")}
SETTINGS = ("state-dir", "server-cert", "server-key", "client-ca")

jobworker = Program(environ=base_environ())


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings that a server starts with."""
    authority = Authority()
    files = authority.server().write(tmp_path, "server")
    (tmp_path / "ca.crt").write_bytes(authority.certificate)
    return {
        "listen": "127.0.0.1:0",
        "state-dir": tmp_path / "state",
        "server-cert": files.certificate,
        "server-key": files.key,
        "client-ca": tmp_path / "ca.crt",
    }


def doctor(settings: Settings, *words: str | Path, code: int | None = 0) -> Finished:
    """What the doctor says, as JSON."""
    return jobworker("doctor", *words_of(settings), "--output", "json", *words, code=code)


def by_name(finished: Finished) -> dict[str, dict[str, str | None]]:
    """The findings, each of which has a name of its own."""
    names = [finding["name"] for finding in finished.json]
    assert len(set(names)) == len(names)
    return {finding["name"]: finding for finding in finished.json}


def errors(finished: Finished) -> set[str]:
    """What is said to keep the server from starting."""
    return {name for name, finding in by_name(finished).items() if finding["status"] == "error"}


def _expired(settings: Settings) -> None:
    Authority().server(lifetime=EXPIRED).write(settings["client-ca"].parent, "server")


def _not_yet_valid(settings: Settings) -> None:
    Authority().server(lifetime=NOT_YET_VALID).write(settings["client-ca"].parent, "server")


def _wrong_key(settings: Settings) -> None:
    settings["server-key"] = Authority().server().write(settings["client-ca"].parent, "other").key


def _no_certificate(settings: Settings) -> None:
    settings["server-cert"] = settings["client-ca"].parent / "missing.crt"


def _certificate_of_a_client(settings: Settings) -> None:
    files = Authority().client("alice").write(settings["client-ca"].parent, "alice")
    settings |= {"server-cert": files.certificate, "server-key": files.key}


def _no_authority(settings: Settings) -> None:
    settings["client-ca"].write_text("no certificate")


def _state_in_a_file(settings: Settings) -> None:
    settings["state-dir"] = settings["client-ca"] / "state"


def _state_that_cannot_be_made(settings: Settings) -> None:
    settings["state-dir"] = "/proc/jobworker"


def _foreign_database(settings: Settings) -> None:
    settings["state-dir"].mkdir(mode=0o700)
    (settings["state-dir"] / "jobs.db").write_text("no database, but as long as the header of one" * 10)


def _jobs_in_a_file(settings: Settings) -> None:
    settings["state-dir"].mkdir(mode=0o700)
    (settings["state-dir"] / "jobs").touch()


def _removed_in_a_file(settings: Settings) -> None:
    settings["state-dir"].mkdir(mode=0o700)
    (settings["state-dir"] / "removed").touch()


def _log_is_a_folder(settings: Settings) -> None:
    (settings["state-dir"] / "spawner.log").mkdir(mode=0o700, parents=True)


def _no_user(settings: Settings) -> None:
    settings["job-user"] = "nobody-of-this-name"


def _no_audit_log(settings: Settings) -> None:
    settings["audit-log"] = settings["client-ca"].parent / "missing" / "audit.log"


def _unknown_host(settings: Settings) -> None:
    settings["listen"] = "192.0.2.1:0"


def _wrong_setting(settings: Settings) -> None:
    settings["retention-age"] = "soon"


def _bad_file(settings: Settings) -> None:
    settings["config"] = settings["client-ca"].parent / "server.toml"
    settings["config"].write_text("[limits.default]\nmemory = '2G'\n[limits.maximum]\nmemory = '1G'\n")


@pytest.mark.parametrize(
    "spoil, blamed",
    [
        (_expired, {"server_cert", "server_key"}),
        (_not_yet_valid, {"server_cert", "server_key"}),
        (_wrong_key, {"server_key"}),
        (_no_certificate, {"server_cert"}),
        (_certificate_of_a_client, {"server_cert", "server_key"}),
        (_no_authority, {"client_ca"}),
        (_state_in_a_file, {"state_dir"}),
        (_state_that_cannot_be_made, {"state_dir"}),
        (_foreign_database, {"state_dir"}),
        (_jobs_in_a_file, {"state_dir"}),
        (_removed_in_a_file, {"state_dir"}),
        (_log_is_a_folder, {"state_dir"}),
        (_no_user, {"job_user"}),
        (_no_audit_log, {"audit_log"}),
        (_unknown_host, {"port"}),
        (_wrong_setting, {"settings"}),
        (_bad_file, {"settings"}),
    ],
)
def test_agrees_with_the_server_on_what_is_wrong(
    settings: Settings, spoil: Callable[[Settings], None], blamed: set[str]
) -> None:
    """What the doctor calls an error keeps the server from starting."""
    spoil(settings)
    found = errors(doctor(settings, code=1))
    assert found
    assert found <= blamed
    assert not serve_starts(settings)


@pytest.mark.parametrize("change", [{}, {"cgroups": "off"}, {"durability": "power"}, {"audit-log": "off"}])
def test_agrees_with_the_server_on_what_is_right(settings: Settings, change: Settings) -> None:
    """Where the doctor finds no error, the server starts: in a new folder, and in the one that is left then."""
    settings |= change
    for _ in range(2):
        assert errors(doctor(settings)) == set()
        assert serve_starts(settings)


def test_agrees_with_the_server_on_a_stray_file(settings: Settings) -> None:
    """A file where only folders that are to be deleted should be is deleted, too."""
    removed = settings["state-dir"] / "removed"
    removed.mkdir(mode=0o700, parents=True)
    (removed / "file").touch()
    assert errors(doctor(settings)) == set()
    assert serve_starts(settings)
    assert not list(removed.iterdir())


def test_agrees_with_the_server_on_required_limits(settings: Settings) -> None:
    """Controllers that are missing are errors where limits are required, and the server does not start."""
    settings["cgroups"] = "require"
    finished = doctor(settings, code=None)
    assert finished.code == (1 if errors(finished) else 0)
    assert serve_starts(settings) == (finished.code == 0)
    if missing_controllers():
        assert "limits" in errors(finished)
        assert by_name(doctor({**settings, "cgroups": "auto"}))["controller_memory"]["status"] in ("ok", "warning")
        refusal = jobworker("serve", *words_of(settings), code=1).complaint
        remedies = {row["remedy"] for name, row in by_name(finished).items() if name in CONTROLLER_ROWS}
        assert [remedy for remedy in remedies if remedy and remedy in refusal], refusal
        assert refusal not in (by_name(finished)["limits"]["detail"] or "")
    assert by_name(doctor({**settings, "cgroups": "off"}))["controller_memory"]["status"] == "skipped"


@pytest.mark.parametrize("mode", ["off", "auto", "require"])
def test_agrees_with_the_server_on_configured_limits(settings: Settings, mode: str) -> None:
    """What is configured and not in force is said by both: a warning, and an error where limits are required."""
    settings |= {"cgroups": mode, "config": settings["client-ca"].parent / "server.toml"}
    settings["config"].write_text("[limits.default]\nmemory = '2G'\n")
    finished = doctor(settings, code=None)
    if mode != "off" and not missing_controllers():
        assert by_name(finished)["limits"]["status"] == "ok"
        return
    assert by_name(finished)["limits"]["status"] == ("error" if mode == "require" else "warning")
    assert "memory" in (by_name(finished)["limits"]["detail"] or "")
    assert serve_starts(settings) == (finished.code == 0) == (mode != "require")


@pytest.mark.skipif(not missing_controllers(), reason="all limits can be enforced here")
def test_all_is_not_well_where_no_limit_can_be_enforced(settings: Settings) -> None:
    """The server starts; that every job with a limit will be refused is more than a remark."""
    finding = by_name(doctor(settings))["limits"]
    assert finding["status"] == "warning"
    assert (finding["detail"] or "").startswith("refused when a job asks for them: cpus, ")


def test_people_read_a_remedy_once(settings: Settings) -> None:
    """It stands below the last of those in a row that it is for; programs find it with each."""
    findings = json.loads(doctor(settings, code=None).stdout)
    remedies = [finding["remedy"] for finding in findings]
    told = [remedy for remedy, following in zip(remedies, [*remedies[1:], None], strict=True) if remedy != following]
    shown = jobworker("doctor", *words_of(settings), code=None).text.splitlines()
    arrows = [line.partition("-> ")[2] for line in shown if line.lstrip().startswith("-> ")]
    assert arrows == [remedy for remedy in told if remedy is not None]


def test_an_address_of_another_machine(settings: Settings) -> None:
    """There is no process to end: the doctor and the server say that the address is not there."""
    settings["listen"] = "192.0.2.1:0"
    finding = by_name(doctor(settings, code=1))["port"]
    assert "this machine has no such address" in (finding["detail"] or "")
    assert finding["remedy"] == "choose another address (listen)"
    assert jobworker("serve", *words_of(settings), code=1).complaint == finding["detail"]


def test_agrees_with_the_server_on_a_port_in_use(settings: Settings) -> None:
    """The process that has the port is named."""
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        settings["listen"] = f"127.0.0.1:{taken.getsockname()[1]}"
        finished = doctor(settings, code=1)
        assert errors(finished) == {"port"}
        assert f"process {os.getpid()} (" in (by_name(finished)["port"]["detail"] or "")
        assert not serve_starts(settings)


@pytest.mark.skipif(os.geteuid() != 0, reason="files of somebody else are made by root")
def test_agrees_with_the_server_on_a_state_directory_of_somebody_else(settings: Settings) -> None:
    """Without the right to write there, the server does not start; with it, if it may execute its own interpreter."""
    as_nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    if subprocess.run([*as_nobody, JOBWORKER, "--version"], check=False, capture_output=True).returncode:
        pytest.skip("this interpreter can be executed by its owner alone")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        for setting in ("server-cert", "server-key", "client-ca"):
            settings[setting] = shutil.copy(settings[setting], folder)
            os.chown(settings[setting], 65534, 65534)
        settings["state-dir"] = folder / "state"
        settings["state-dir"].mkdir()
        (settings["state-dir"] / "note").touch(mode=0o600)  # somebody's, which no server looks at
        for owner in (0, 65534):
            os.chown(settings["state-dir"], owner, owner)
            command = [*as_nobody, JOBWORKER, "doctor", *words_of(settings)]
            done = subprocess.run(command, env=base_environ(), check=False, capture_output=True, text=True)
            blamed = {line.split()[0] for line in done.stdout.splitlines() if line.split()[1:2] == ["error"]}
            assert ("state_dir" in blamed) == (owner == 0), done.stdout
            assert blamed <= {"state_dir", "interpreter"}, done.stdout
            assert done.returncode == (1 if blamed else 0)
            assert serve_starts(settings, *as_nobody) == (not blamed), done.stdout


def test_beside_a_running_server(settings: Settings, tmp_path: Path) -> None:
    """A state directory in use is an error, and the server that uses it is not disturbed."""
    with running_server(tmp_path) as server:
        settings |= {"state-dir": server.state_dir, "server-cert": server.files.certificate}
        finished = doctor(settings, code=1)
        assert errors(finished) == {"state_dir"}
        assert "in use by another server" in (by_name(finished)["state_dir"]["detail"] or "")
        assert not serve_starts(settings)


def test_nothing_is_left_behind(settings: Settings, tmp_path: Path) -> None:
    """Files, folders and control groups are as they were."""
    settings["audit-log"] = tmp_path / "audit.log"
    before = sorted(tmp_path.rglob("*"))
    with subprocess.Popen(
        [JOBWORKER, "doctor", *words_of(settings)], env=base_environ(), stdout=subprocess.PIPE
    ) as run:
        run.communicate()
    assert run.returncode == 0
    assert sorted(tmp_path.rglob("*")) == before
    left = [folder for folder, _, _ in os.walk(mount_point() or "/nowhere") if f"doctor-{run.pid}" in folder]
    assert not left


def test_what_is_not_given_is_not_examined() -> None:
    """Without settings the machine is examined, and what is not is said."""
    found = by_name(doctor({"listen": "127.0.0.1:0"}))
    for name in ("settings", *(setting.replace("-", "_") for setting in SETTINGS)):
        assert found[name]["status"] == "skipped", name
        assert "not given" in (found[name]["detail"] or "")
    assert found["pidfd"]["status"] == "ok"


def test_settings_come_from_where_serve_takes_them(settings: Settings, tmp_path: Path) -> None:
    """A file, the environment and flags say the same as for the server."""
    file = tmp_path / "server.toml"
    file.write_text('state_dir = "state"\nserver_cert = "server.crt"\nserver_key = "missing.key"\nlisten = "[::1]:1"\n')
    variables = {"JOBWORKER_CONFIG": str(file), "JOBWORKER_CLIENT_CA": str(settings["client-ca"])}
    program = Program(environ={**base_environ(), **variables})
    finished = program("doctor", "--listen", settings["listen"], "--output", "json", code=1)
    assert errors(finished) == {"server_key"}
    assert by_name(finished)["settings"]["status"] == "ok"


def test_client_certificate(settings: Settings, tmp_path: Path) -> None:
    """Its roles are shown; what the server would refuse it for is a warning, since the server starts."""
    authority = Authority()
    Path(settings["client-ca"]).write_bytes(authority.certificate)
    good = authority.client("alice", roles="user").write(tmp_path, "good").certificate
    finding = by_name(doctor(settings, "--client-cert", good))["client_cert"]
    assert "alice, roles user" in (finding["detail"] or "")
    assert "no authority in client_ca" not in (finding["detail"] or "")
    without = authority.client("alice", roles=None).write(tmp_path, "without").certificate
    finding = by_name(doctor(settings, "--client-cert", without))["client_cert"]
    assert finding["status"] == "warning"
    assert "no role extension" in (finding["detail"] or "")
    foreign = Authority().client("alice").write(tmp_path, "foreign").certificate
    finding = by_name(doctor(settings, "--client-cert", foreign))["client_cert"]
    assert finding["status"] == "warning"
    assert "no authority in client_ca has issued it" in (finding["detail"] or "")


def test_clock(settings: Settings) -> None:
    """A certificate file that is from the future says that the clock is behind."""
    os.utime(settings["client-ca"], (4e9, 4e9))
    finding = by_name(doctor(settings))["clock"]
    assert finding["status"] == "warning"
    assert "client_ca is of 2096-" in (finding["detail"] or "")


def test_for_people(settings: Settings) -> None:
    """A table with a line a finding, remedies below, no colour in a pipe, and the verdict on stderr."""
    settings["server-key"].chmod(0o644)
    finished = jobworker("doctor", *words_of(settings))
    assert finished.complaint == "`jobworker serve` would start"
    assert "\x1b" not in finished.text
    lines = [line.split(maxsplit=2) for line in finished.text.splitlines()]
    assert ["pidfd", "ok", "processes can be held by a descriptor"] in lines
    key = next(index for index, line in enumerate(lines) if line[:2] == ["server_key", "warning"])
    assert lines[key + 1] == ["->", "chmod", f"600 {settings['server-key']}"]


@pytest.mark.parametrize("watch, words", [("poll", "every 10 ms to 1 s"), ("inotify", "the kernel tells")])
def test_how_output_is_noticed_is_told(settings: Settings, watch: str, words: str) -> None:
    """What the setting decides is what is in use."""
    finding = by_name(doctor({**settings, "output-watch": watch}))["output_watch"]
    assert finding["status"] == "ok"
    assert words in (finding["detail"] or "")


def test_documented_names(settings: Settings) -> None:
    """docs/cli.md has exactly the names that there are."""
    page = (Path(__file__).parents[3] / "docs" / "cli.md").read_text(encoding="utf-8")
    section = page.partition("## The doctor\n")[2].partition("\n## ")[0]
    table = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    named = [name.strip(" `") for cell in table for name in cell.split(",")]
    assert named == list(by_name(doctor(settings)))
    assert json.loads(doctor(settings).stdout)[0].keys() == {"name", "status", "detail", "remedy"}
