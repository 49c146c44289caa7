"""`run` and `wait` exit as the job did; nothing else is on stdout; Ctrl-C means what people expect."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import uuid
from io import FileIO

import pytest

from tests.support.program import JOBWORKER, LIMIT, Background, Program

SLEEPER = "echo ready; exec sleep 60"
# Says what it is sent, and goes on.
STUBBORN = "trap 'echo interrupted' INT; trap 'echo terminated' TERM; echo ready; while :; do sleep 0.05; done"


@pytest.mark.parametrize(
    "script, code",
    [("exit 0", 0), ("exit 3", 3), ("exit 255", 255), ("kill -KILL $$", 137), ("kill -TERM $$", 143)],
)
def test_exit_codes_of_jobs(alice: Program, script: str, code: int) -> None:
    """The exit code is the job's, or 128 and its signal, from `run` and from `wait`."""
    alice("run", "--", "sh", "-c", script, code=code)
    alice("wait", alice.start("sh", "-c", script), code=code)


def test_time_limit(alice: Program) -> None:
    """A job that reaches its time limit gives 124, and a line on stderr says so."""
    done = alice("run", "--timeout", "100ms", "sleep", "60", code=124)
    assert done.complaint.endswith("reached its time limit of 100ms and was ended")


def test_wait_for_several(alice: Program) -> None:
    """It ends when all have ended, with the code of the first that failed, in the order of the words."""
    late = alice.start("sh", "-c", "trap 'exit 5' USR1; while :; do sleep 0.05; done")
    good, bad, killed = (alice.start("sh", "-c", script) for script in ("exit 0", "exit 3", "kill -9 $$"))
    with alice.begin("wait", good, late, bad, "--output", "json") as wait:
        wait.read_until('  "exit_code": 0,\n')  # while another runs
        alice("signal", late, "USR1")
        assert wait.end().code == 5
    alice("wait", good, good, code=0)
    done = alice("wait", good, bad, killed, code=3)
    assert done.complaint.startswith(f"job {killed}: ")
    missing = str(uuid.uuid4())
    assert alice("wait", bad, missing, good, code=125).complaint == f"no job '{missing}'"


def test_not_found(alice: Program) -> None:
    """A command that does not exist gives 127 from run and start, and a line that says so."""
    for verb in ("run", "start"):
        done = alice(verb, "no-such-command", code=127)
        assert "cannot start 'no-such-command': command not found" in done.complaint
        assert done.stdout == b""
        assert alice(verb, "uname -a", code=127).complaint.endswith("or a shell the whole: sh -c 'uname -a'")


def test_not_executable(alice: Program) -> None:
    """A file that cannot be executed gives 126 from run and start."""
    for verb in ("run", "start"):
        assert "permission denied" in alice(verb, "/etc/passwd", code=126).complaint


def test_no_such_directory(alice: Program) -> None:
    """Every other reason why a job cannot be started is none of the codes that a command may have."""
    assert "working directory" in alice("run", "--cwd", "/no/such", "true", code=125).complaint
    assert "working directory" in alice("start", "--cwd", "/no/such", "true", code=1).complaint


@pytest.mark.parametrize("words", [["--no-such-option"], [], ["--timeout", "soon", "true"], ["--env", "A", "true"]])
def test_wrong_command_line(alice: Program, words: list[str]) -> None:
    """A wrong command line of `run` gives 125, since a job may exit with 2; of `start` it gives 2."""
    assert "--help" in alice("run", *words, code=125).complaint
    assert "--help" in alice("start", *words, code=2).complaint


def test_stopped(alice: Program) -> None:
    """A job that somebody stops gives 128 and the signal, and a line that says who it was."""
    with alice.begin("run", "--", "sh", "-c", SLEEPER) as run:
        job_id = running_id(alice, run)
        alice("stop", job_id)
        done = run.end()
    assert done.code == 143
    assert done.complaint == f"job {job_id} was stopped by alice"
    assert alice("wait", job_id, code=143).complaint == done.complaint


def test_stopped_jobs_never_succeed(alice: Program) -> None:
    """A job that exits with 0 because it is stopped did not do what it was to do."""
    job_id = alice.start("sh", "-c", "trap 'exit 0' TERM; echo ready; while :; do sleep 0.05; done")
    with alice.begin("stream", job_id) as stream:
        assert stream.line() == "ready\n"
    assert alice("stop", job_id, "--output", "json").json["exit_code"] == 0
    alice("wait", job_id, code=143)


def test_output_is_exact(alice: Program) -> None:
    """Bytes of any kind arrive as they are, and stdout has nothing else."""
    script = r"printf '\000\377\r\n\033[31m\200'; printf 'to stderr\n' >&2; printf end"
    done = alice("run", "--", "sh", "-c", script)
    assert done.stdout == b"\0\xff\r\n\x1b[31m\x80to stderr\nend"
    assert done.stderr == ""


@pytest.mark.parametrize("output", ["number", "number\n", ""])
def test_what_is_said_has_a_line_of_its_own(alice: Program, output: str) -> None:
    """Where both go the same way, the job's last line is ended first; where they do not, its bytes are left alone."""
    words = ["run", "--", "sh", "-c", f"printf '{output}'; kill -9 $$"]
    both = subprocess.run(
        [JOBWORKER, *words],
        env=alice.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=LIMIT,
        check=False,
    )
    first = output.strip() + "\n" if output else ""
    assert re.fullmatch(rf"{first}jobworker: .*SIGKILL.*\n", both.stdout.decode()), both.stdout
    apart = alice(*words, code=137)
    assert (apart.text, "SIGKILL" in apart.complaint) == (output, True)


def test_options_reach_the_job(alice: Program) -> None:
    """Environment, directory, name, labels and time limit are the job's."""
    words = [
        "--env",
        "A=1=2",
        "--cwd",
        "/usr",
        "--name",
        "n",
        "--label",
        "k=v",
        "--timeout",
        "1h",
        "--children",
        "wait",
    ]
    done = alice("run", *words, "sh", "-c", "echo $A; pwd; echo $JOBWORKER_JOB_ID")
    value, directory, job_id = done.text.splitlines()
    assert (value, directory) == ("1=2", "/usr")
    job = alice("status", job_id, "--output", "json").json
    assert (job["name"], job["labels"], job["time_limit"], job["child_policy"]) == ("n", {"k": "v"}, 3600, "WAIT")
    assert (job["cwd"], job["env_names"]) == ("/usr", ["A"])


def test_options_of_the_command_are_its_own(alice: Program) -> None:
    """What follows the command's name belongs to the command, with and without --."""
    for words in (["echo", "--name", "-j", "--help"], ["--", "echo", "--name", "-j", "--help"]):
        assert alice("run", *words).text == "--name -j --help\n"


def test_detach(alice: Program) -> None:
    """`run --detach` is `start`: the id and nothing else."""
    job_id = alice("run", "--detach", "true").text
    assert job_id == f"{uuid.UUID(job_id.strip())}\n"
    alice("wait", job_id.strip())


def test_request_id(alice: Program) -> None:
    """The same request id gives the same job; with another command it is an error."""
    request_id = str(uuid.uuid4())
    first, second = (alice("start", "--request-id", request_id, "true").text for _ in range(2))
    assert first == second
    assert "already used" in alice("start", "--request-id", request_id, "false", code=1).complaint
    assert alice("start", "--request-id", "foo", "true", code=1).complaint == "--request-id: 'foo' is no UUID"


def test_ctrl_c_three_times(alice: Program) -> None:
    """The first interrupts the job, the second stops it, the third leaves; each says so in a line on stderr."""
    with alice.begin("run", "--", "sh", "-c", STUBBORN) as run:
        job_id = running_id(alice, run)
        run.press_ctrl_c()
        run.read_until("interrupted\n")
        assert run.complaint() == f"sending SIGINT to job {job_id}; press Ctrl-C again to stop it"
        run.press_ctrl_c()
        run.read_until("terminated\n")
        assert run.complaint() == (
            f"stopping job {job_id} (SIGTERM, and a kill after 10 s); press Ctrl-C again to leave it"
        )
        run.press_ctrl_c()
        done = run.end()
    assert done.code == 130
    assert done.complaint == f"left job {job_id}; `jobworker wait {job_id}` tells how it ends"
    alice("stop", job_id, "--grace", "0")


def test_ctrl_c_once(alice: Program) -> None:
    """A job that an interrupt ends gives 130, as it would here."""
    with alice.begin("run", "--", "sh", "-c", SLEEPER) as run:
        job_id = running_id(alice, run)
        run.press_ctrl_c()
        assert "sending SIGINT" in run.complaint()
        done = run.end()
    assert done.code == 130
    assert done.complaint == f"job {job_id} was ended by signal SIGINT"


def test_ctrl_c_on_a_terminal(alice: Program) -> None:
    """On a terminal, the key itself does it."""
    controller, terminal = pty.openpty()
    process = subprocess.Popen(
        ["setsid", "--ctty", "--wait", JOBWORKER, "run", "--", "sh", "-c", SLEEPER],
        env=alice.environ,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
    )
    os.close(terminal)
    with open(controller, "r+b", buffering=0) as screen:  # noqa: PTH123 -- a descriptor has no path
        assert read_screen(screen, b"ready\r\n") == b"ready\r\n"
        screen.write(b"\x03")
        assert b"sending SIGINT to job" in read_screen(screen, b"was ended by signal SIGINT\r\n")
        assert process.wait(LIMIT) == 130


def test_ctrl_c_of_somebody_who_only_looks_on(alice: Program) -> None:
    """`stream` leaves at once, without a word, and the job runs on."""
    job_id = alice.start("sh", "-c", SLEEPER)
    with alice.begin("stream", job_id) as stream:
        assert stream.line() == "ready\n"
        stream.press_ctrl_c()
        done = stream.end()
    assert (done.code, done.stderr.strip()) == (130, "")
    assert alice("status", job_id, "--output", "json").json["state"] == "RUNNING"
    alice("stop", job_id, "--grace", "0")


def test_nobody_reads(alice: Program) -> None:
    """When its reader goes away, `run` ends like any program in a pipe, and the job runs on."""
    with alice.begin("run", "--", "sh", "-c", "echo ready; while :; do echo more; sleep 0.05; done") as run:
        job_id = running_id(alice, run)
        run.close_output()
        done = run.end()
    assert done.code == 141
    assert done.complaint == f"nobody reads the output any more; job {job_id} goes on"
    alice("stop", job_id, "--grace", "0")


def test_a_full_disk(alice: Program) -> None:
    """Output that cannot be written is a failure, and never the job's code."""
    with open("/dev/full", "wb") as full, alice.begin("run", "echo", "hello", stdout=full.fileno()) as run:  # noqa: PTH123 -- it is no file of ours
        done = run.end()
    assert (done.code, done.complaint) == (125, "cannot write the output: No space left on device")


def running_id(alice: Program, run: Background) -> str:
    """The id of the job of a `run` that prints "ready" first; no other job runs."""
    assert run.line() == "ready\n"
    (job,) = alice("list", "--state", "running", "--output", "json").json
    return job["id"]


def read_screen(screen: FileIO, expected: bytes) -> bytes:
    """What a terminal shows up to and including this."""
    shown = b""
    while expected not in shown:
        shown += screen.read(4096)
    return shown
