"""What the commands print: exact JSON for programs, harmless tables for people, one line for errors."""

from __future__ import annotations

import json
import re
import subprocess
import uuid
from dataclasses import fields
from datetime import datetime

import pytest

from jobworker.core.limits import Limits
from jobworker.core.usage import Usage
from tests.support.pki import EXPIRED, Authority
from tests.support.program import JOBWORKER, LIMIT, Finished, Program, program_of
from tests.support.server import Server

FIELDS = [
    "id",
    "name",
    "state",
    "cause",
    "exit_code",
    "signal",
    "signal_name",
    "owner",
    "argv",
    "cwd",
    "env_names",
    "labels",
    "time_limit",
    "child_policy",
    "create_time",
    "start_time",
    "end_time",
    "stopped_by",
    "stop_time",
    "output_bytes",
    "output_first_offset",
    "output_dropped_bytes",
    "output_mode",
    "output_limit_bytes",
    "output_policy",
    "paused",
    "unkillable_pids",
    "limits",
    "usage",
]


def test_status_json(alice: Program) -> None:
    """The fields are the promised ones, and their values those of the job."""
    job_id = alice.start("sh", "-c", "printf abc; exit 3")
    alice("wait", job_id, code=3)
    job = alice("status", job_id, "--output", "json").json
    assert list(job) == FIELDS
    times = [datetime.fromisoformat(job.pop(name)) for name in ("create_time", "start_time", "end_time")]
    assert times == sorted(times)
    assert set(job.pop("limits")) == {field.name for field in fields(Limits)}
    assert (usage := job.pop("usage")) is None or set(usage) == {field.name for field in fields(Usage)}
    assert job == {
        "id": job_id,
        "name": None,
        "state": "FINISHED",
        "cause": "EXITED",
        "exit_code": 3,
        "signal": None,
        "signal_name": None,
        "owner": "alice",
        "argv": ["sh", "-c", "printf abc; exit 3"],
        "cwd": "/",
        "env_names": [],
        "labels": {},
        "time_limit": None,
        "child_policy": "KILL",
        "stopped_by": None,
        "stop_time": None,
        "output_bytes": 3,
        "output_first_offset": 0,
        "output_dropped_bytes": 0,
        "output_mode": "COMBINED",
        "output_limit_bytes": 10 * 1024**3,
        "output_policy": "KEEP_LAST",
        "paused": False,
        "unkillable_pids": [],
    }


def test_stop_json(alice: Program) -> None:
    """`stop` and `wait` report the same job as `status`, and who stopped it."""
    job_id = alice.start("sleep", "60")
    stopped = alice("stop", job_id, "--output", "json").json
    assert (stopped["state"], stopped["cause"], stopped["signal"]) == ("STOPPED", "STOPPED", 15)
    assert (stopped["signal_name"], stopped["stopped_by"]) == ("SIGTERM", "alice")
    assert alice("wait", job_id, "--output", "json", code=143).json == stopped
    assert alice("status", job_id, "--output", "json").json == stopped


def test_environment_stays_out(alice: Program) -> None:
    """The values of the environment may be secrets and are not printed."""
    job_id = alice("start", "--env", "TOKEN=hunter2", "--", "true").text.strip()
    for output in ("text", "json"):
        assert "hunter2" not in alice("status", job_id, "--output", output).text


def test_older_forms(alice: Program) -> None:
    """The forms of the older service's command line work."""
    job_id = alice("start", "-c", "printf", "-args", "%s.", "-c", "--", "-args").text.strip()
    assert alice("stream", "-j", job_id).text == "-c.--.-args."
    assert f"id          {job_id}\n" in alice("status", "-j", job_id).text
    sleeper = alice("start", "-c", "sleep", "-args", "60").text.strip()
    assert alice("stop", "-j", sleeper).complaint == f"job {sleeper} is stopped"
    alice("wait", "-j", sleeper, code=143)


def test_one_id(alice: Program) -> None:
    """An id has to be given, once."""
    assert "give the id of a job" in alice("status", code=2).complaint
    assert "one job" in alice("status", "id-a", "-j", "id-b", code=2).complaint
    assert "give the id of a job" in alice("wait", code=125).complaint


def test_list(server: Server) -> None:
    """The list has the caller's jobs, newest first, and its filters combine."""
    bob = program_of(server, "bob")
    ids = [bob("start", "--label", f"n={n % 2}", "--", *command).text.strip() for n, command in enumerate(COMMANDS)]
    for job_id in ids[:-1]:
        bob("wait", job_id, code=None)
    listed = bob("list", "--output", "json").json
    assert [job["id"] for job in listed] == ids[::-1]
    assert all(list(job) == FIELDS for job in listed)

    def ids_of(*words: str) -> list[str]:
        return [job["id"] for job in bob("list", "--output", "json", *words).json]

    assert ids_of("--state", "running") == [ids[3]]
    assert ids_of("--label", "n=0") == [ids[2], ids[0]]
    assert ids_of("--label", "n=1", "--state", "FINISHED", "--state", "stopped") == [ids[1]]
    assert ids_of("--limit", "2") == ids[:1:-1]
    assert ids_of("--before", listed[1]["create_time"]) == [ids[1], ids[0]]
    assert ids_of("--since", listed[1]["create_time"]) == [ids[3], ids[2]]
    assert ids_of("--since", "1h") == ids[::-1]
    assert ids_of("--owner", "alice") == []
    bob("stop", ids[-1])


COMMANDS = (["true"], ["false"], ["echo", "a b"], ["sleep", "60"])


def test_table(server: Server) -> None:
    """The table for people has aligned columns, no colour in a pipe, and nothing that a terminal would obey."""
    carol = program_of(server, "carol")
    ids = [
        carol("start", "--name", "long name", "--", "printf", "\x1b[31m\r\n").text.strip(),
        carol("start", "--", "sh", "-c", "exit 3").text.strip(),
    ]
    for job_id in ids:
        carol("wait", job_id, code=None)
    header, *rows = carol("list").text.splitlines()
    assert header.split() == ["ID", "STATE", "END", "NAME", "STARTED", "OWNER", "COMMAND"]
    columns = [header.index(title) for title in header.split()]
    assert [re.split(r" {2,}", row)[:4] for row in rows] == [
        [ids[1], "FINISHED", "exit 3", "-"],
        [ids[0], "FINISHED", "exit 0", "long name"],
    ]
    assert [row[columns[-1] :] for row in rows] == ["sh -c 'exit 3'", r"printf '\x1b[31m\r\n'"]
    assert all(row[column - 1] == " " for row in rows for column in columns[1:])


def test_empty_list(server: Server) -> None:
    """No jobs are an empty JSON array, and for people a line on stderr."""
    nobody = program_of(server, "nobody-yet")
    assert nobody("list", "--output", "json").json == []
    done = nobody("list")
    assert (done.stdout, done.complaint) == (b"", "there are no such jobs")


@pytest.mark.parametrize("no_color, coloured", [("", True), ("1", False)])
def test_colour(alice: Program, no_color: str, *, coloured: bool) -> None:
    """A terminal gets colours, unless NO_COLOR is set."""
    job_id = alice.start("true")
    alice("wait", job_id)
    command = f"{JOBWORKER} status {job_id}"
    done = subprocess.run(
        ["script", "--quiet", "--return", "--command", command, "/dev/null"],
        env={**alice.environ, "NO_COLOR": no_color, "TERM": "xterm"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=LIMIT,
        check=True,
    )
    assert (b"\x1b[32mFINISHED\x1b[0m (exit 0)" in done.stdout) == coloured
    assert (b"FINISHED (exit 0)" in done.stdout) != coloured


def test_signal_and_remove(alice: Program) -> None:
    """`signal` sends a signal by name or number; `remove` forgets an ended job, and refuses one that runs.

    Both say on stderr what they have done, as others do.
    """
    job_id = alice.start("sleep", "60")
    assert "still running" in alice("remove", job_id, code=1).complaint
    done = alice("signal", job_id, "hup")
    assert done == Finished(code=0, stdout=b"", stderr=f"jobworker: SIGHUP was sent to job {job_id}\n")
    alice("wait", job_id, code=129)
    assert "already finished" in alice("signal", job_id, "9", code=1).complaint
    assert "already finished" in alice("stop", job_id, code=1).complaint
    assert alice("remove", job_id) == Finished(code=0, stdout=b"", stderr=f"jobworker: job {job_id} is removed\n")
    assert alice("status", job_id, code=1).complaint == f"no job '{job_id}'"
    assert "no signal" in alice("signal", job_id, "NOSUCH", code=2).complaint


def test_one_that_cannot_be_removed_does_not_keep_the_others(alice: Program) -> None:
    """Each failure is told in a line, and the code is not 0."""
    ended = alice.start("true")
    alice("wait", ended)
    missing = [str(uuid.uuid4()), str(uuid.uuid4())]
    done = alice("remove", missing[0], ended, missing[1], code=1)
    refusals = [f"jobworker: no job '{job_id}'" for job_id in missing]
    assert done.stderr.splitlines() == [f"jobworker: job {ended} is removed", *refusals]
    alice("status", ended, code=1)


def test_several_are_acted_on_at_once(alice: Program) -> None:
    """`stop`, `pause` and `resume` take several jobs; one that refuses does not keep the others, and the code is 1."""
    ended, *jobs = (alice.start(*command) for command in (["true"], ["sleep", "60"], ["sleep", "60"]))
    alice("wait", ended)
    for verb, done in (("pause", "is paused"), ("resume", "goes on"), ("stop", "is stopped")):
        told = alice(verb, jobs[0], ended, jobs[1][:8], code=1).stderr.splitlines()
        assert told[-1] == f"jobworker: cannot {verb} job {ended}: already finished"
        assert {line.partition(";")[0] for line in told[:-1]} == {f"jobworker: job {job_id} {done}" for job_id in jobs}
    again = alice("stop", *jobs, "--output", "json").text
    assert {json.loads(part)["id"] for part in again.replace("}\n{", "}\n\0{").split("\0")} == set(jobs)


def test_a_label_instead_of_ids(alice: Program) -> None:
    """`stop` takes the running jobs with a label and `remove` the ended ones; others, and those of others, stay."""
    label = f"test={uuid.uuid4()}"
    start = ["start", "--label", label, "--"]
    ended, other = alice(*start, "true").text.strip(), alice.start("sleep", "60")
    alice("wait", ended)
    running = alice(*start, "sleep", "60").text.strip()
    assert alice("remove", "--label", label).stderr == f"jobworker: job {ended} is removed\n"
    assert alice("stop", "--label", label, "--grace", "0").stderr == f"jobworker: job {running} is stopped\n"
    assert alice("list", "--label", label, "-q").text == f"{running}\n"
    assert alice("remove", "--label", label).stderr == f"jobworker: job {running} is removed\n"
    for verb in ("stop", "remove"):
        assert alice(verb, "--label", label).complaint == "there are no such jobs"
        assert "not both" in alice(verb, other, "--label", label, code=2).complaint
        assert "give the id of a job, or --label" in alice(verb, code=2).complaint
    assert other in alice("list", "--state", "RUNNING", "--quiet").text.splitlines()
    alice("stop", other, "--grace", "0")


def test_ids_alone(alice: Program) -> None:
    """`list -q` prints ids for other commands, nothing if there are none, and is not JSON as well."""
    job_id = alice.start("true")
    assert alice("list", "-q", "--limit", "1") == Finished(code=0, stdout=f"{job_id}\n".encode(), stderr="")
    assert alice("list", "-q", "--label", "test=none") == Finished(code=0, stdout=b"", stderr="")
    assert "not both" in alice("list", "-q", "--output", "json", code=2).complaint


def test_a_shell_completes_ids(alice: Program) -> None:
    """Those of the caller's jobs that begin so; nothing, and no complaint, where the server cannot be asked."""
    job_id = alice.start("true")
    shell = {"_JOBWORKER_COMPLETE": "bash_complete", "COMP_WORDS": f"jobworker status {job_id[:8]}", "COMP_CWORD": "2"}
    assert Program(environ={**alice.environ, **shell})().text == f"plain,{job_id}\n"
    lost = {"JOBWORKER_SERVER": "127.0.0.1:1"}
    done = Program(environ={**alice.environ, **shell, **lost})()
    assert (done.text.strip(), done.stderr) == ("", "")


def test_start_json(alice: Program) -> None:
    """For programs the job as `status` shows it, from `start` and from `run --detach`."""
    for words in (["start"], ["run", "--detach"]):
        job = alice(*words, "--output", "json", "--", "true").json
        assert list(job) == list(alice("status", job["id"], "--output", "json").json)


def test_info(alice: Program) -> None:
    """`info` tells what the server is."""
    info = alice("info", "--output", "json").json
    assert list(info) == [
        *("version", "executor", "enforceable_limits", "process_tracking", "durability", "job_user", "cgroups"),
        *("missing_limits", "limit_defaults", "limit_maximums"),
    ]
    assert (info["executor"], info["cgroups"]) == ("local", "auto")
    assert info["limit_defaults"] == info["limit_maximums"] == {**dict.fromkeys(info["limit_defaults"]), "io": []}
    assert re.search(r"^executor +local$", alice("info").text, re.MULTILINE)


def test_flags_before_and_after(server: Server, alice: Program) -> None:
    """The server may be named before or after the command, and a flag wins over the environment."""
    astray = Program(environ={**alice.environ, "JOBWORKER_SERVER": "localhost:1"})
    astray("list", code=125)
    astray("--server", server.address, "list")
    astray("list", "--server", server.address)
    astray("--server", "localhost:2", "list", "--server", server.address)


def test_profile(server: Server, alice: Program) -> None:
    """A profile says all that flags and environment would; what they say wins over it."""
    environ = {key: value for key, value in alice.environ.items() if not key.startswith("JOBWORKER_")}
    user = Program(environ={**environ, "JOBWORKER_CONFIG_DIR": str(server.directory / "config")})
    assert "no server is named: give --server" in user("list", code=125).complaint
    words = [f"--{name}={alice.environ[f'JOBWORKER_{name.upper()}']}" for name in ("ca", "cert", "key")]
    user("profile", "add", "build", "--server", server.address, *words)
    user("profile", "add", "wrong", *words, "--server", "localhost:1")
    user("list")
    user("--profile", "wrong", "list", code=125)
    user("list", "--profile", "wrong", "--server", server.address)
    user("profile", "use", "wrong")
    user("list", code=125)
    assert "no profile 'nosuch'" in user("list", "--profile", "nosuch", code=125).complaint
    file = server.directory / "config" / "profiles.toml"
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)


def test_connection_problems(server: Server, alice: Program) -> None:
    """What keeps a call from being made is one line that says what to do, and 125."""
    lost = Program(environ={**alice.environ, "JOBWORKER_CERT": "/no/such.crt"})
    assert "there is no client certificate /no/such.crt" in lost("run", "true", code=125).complaint
    stranger = program_of(server, "mallory", Authority("another").client("mallory"))
    assert "does not accept the client certificate" in stranger("list", code=125).complaint
    late = program_of(server, "late", server.authority.client("late", lifetime=EXPIRED))
    assert "expired on" in late("start", "true", code=125).complaint
    down = Program(environ={**alice.environ, "JOBWORKER_SERVER": "127.0.0.1:1"})
    assert down("run", "true", code=125).complaint.startswith("nothing listens at 127.0.0.1:1: check the address")


def test_refused_role(server: Server) -> None:
    """A certificate without a role, or with one that does not exist, is refused in one line."""
    for name, roles in (("norole", None), ("king", "king")):
        caller = program_of(server, name, server.authority.client(name, roles=roles))
        assert "role" in caller("list", code=1).complaint


def test_another_users_job(server: Server, alice: Program) -> None:
    """Somebody else's job and one that never was are the same to a user; an admin reaches both."""
    job_id = alice.start("true")
    dave = program_of(server, "dave")
    assert dave("status", job_id, code=1).complaint == f"no job '{job_id}'"
    missing = str(uuid.uuid4())
    assert dave("status", missing, code=1).complaint == f"no job '{missing}'"
    admin = program_of(server, "root", server.authority.client("root", roles="admin"))
    assert json.loads(admin("status", job_id, "--output", "json").stdout)["owner"] == "alice"
