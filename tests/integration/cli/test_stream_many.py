"""`stream` of several jobs: every line whole, in order, and with the job's name before it."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import uuid
from collections import defaultdict
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import pytest

from jobworker.cli.lines import MAX_LINE_BYTES
from jobworker.client import Client
from jobworker.core.query import DEFAULT_PAGE_SIZE
from tests.support.program import JOBWORKER, LIMIT, Finished, Program, program_of
from tests.support.server import Server, running_server

# Says "ready"; writes "done" and ends when it is told to.
TOLD = "trap 'echo done; exit 3' USR1; (trap '' USR1; exec sleep 600) & echo ready; wait"


@pytest.fixture
def label() -> str:
    """A label that no other test gives."""
    return f"test={uuid.uuid4()}"


def started(user: Program, script: str, *words: str) -> str:
    """The id of a job that runs a shell script."""
    return user("start", *words, "--", "sh", "-c", script).text.strip()


def ended(user: Program, script: str, *words: str) -> str:
    """The id of a job that has run a shell script."""
    job_id = started(user, script, *words)
    user("wait", job_id, code=None)
    return job_id


def client_of(server: Server, user: Program) -> Client:
    """A client of the same user, for what many processes of the command line would take long for."""
    ca, cert, key = (Path(user.environ[f"JOBWORKER_{name}"]) for name in ("CA", "CERT", "KEY"))
    return Client(server.address, ca=ca, cert=cert, key=key)


def told_apart(lines: bytes) -> dict[str, bytes]:
    """The output of each job by its title."""
    outputs: defaultdict[str, bytes] = defaultdict(bytes)
    for line in lines.splitlines(keepends=True) if b"\r" not in lines else re.findall(rb"[^\n]*\n", lines):
        title, separator, rest = line.partition(b" | ")
        assert separator, line
        outputs[title.decode().rstrip()] += rest
    return outputs


def test_two_jobs(alice: Program) -> None:
    """Lines have equally wide prefixes, an end, and otherwise the job's own bytes, whatever they are."""
    first = ended(alice, r"printf 'a\0\377\r\nb\n\nno end'", "--name", "compile")
    second = ended(alice, "echo c; exit 3")
    done = alice("stream", first, second)
    blank = f"{second[:8]} | ".encode()
    assert done.stdout == (b"compile  | a\0\xff\r\ncompile  | b\ncompile  | \ncompile  | no end\n" + blank + b"c\n")
    assert done.stderr == ""
    assert alice("stream", first, second, "--no-prefix").stdout == b"a\0\xff\r\nb\n\nno end\nc\n"


def test_one_job(alice: Program) -> None:
    """One job has its raw bytes, however often it is named, unless a prefix is asked for."""
    job_id = ended(alice, r"printf 'abc\ndef'", "--name", "x")
    assert alice("stream", job_id, job_id).stdout == b"abc\ndef"
    assert alice("stream", job_id, "--no-prefix").stdout == b"abc\ndef"
    assert alice("stream", job_id, "--prefix", "--offset", "1").stdout == b"x | bc\nx | def\n"
    assert alice("stream", "-j", job_id, "--prefix").stdout == b"x | abc\nx | def\n"


def test_split_streams(alice: Program) -> None:
    """What jobs have written to their stderr goes to ours, in whole lines with the same prefixes."""
    script = "echo out; echo err >&2; printf 'no end' >&2"
    split = ended(alice, script, "--name", "split", "--output-streams", "split")
    combined = ended(alice, "echo err >&2", "--name", "both")
    out, err = "split | out\n", "split | err\nsplit | no end\n"
    assert alice("stream", split, "--prefix") == Finished(code=0, stdout=out.encode(), stderr=err)
    done = alice("stream", split, combined)
    assert done == Finished(code=0, stdout=f"{out}both  | err\n".encode(), stderr=err)
    done = alice("stream", split, combined, "--stdout-only", code=1)
    assert done.stdout == out.encode()
    assert done.complaint.startswith(f"the streams of job {combined} are not told apart")
    assert alice("stream", split, "--prefix", "--stderr-only") == Finished(code=0, stdout=b"", stderr=err)
    without = subprocess.run(
        ["sh", "-c", f"exec {JOBWORKER} stream {split} --prefix 2>&-"],
        env=alice.environ,
        stdout=subprocess.PIPE,
        check=True,
        timeout=LIMIT,
    )
    assert without.stdout == out.encode()


def test_live(alice: Program, label: str) -> None:
    """Lines come as they are written, while another job is silent, and it ends when all have ended."""
    jobs = [started(alice, TOLD, "--name", name, "--label", label) for name in "ab"]
    with alice.begin("stream", "--label", label) as stream:
        assert sorted(stream.line() for _ in jobs) == ["a | ready\n", "b | ready\n"]
        alice("signal", jobs[1], "USR1")
        assert stream.line() == "b | done\n"
        alice("signal", jobs[0], "USR1")
        assert stream.end() == Finished(code=0, stdout=b"a | done\n", stderr="")


def test_since(alice: Program, label: str) -> None:
    """What comes before is left out of what there is and of what follows, although all of it came before."""
    jobs = [started(alice, TOLD, "--name", name, "--label", label) for name in "ab"]
    with alice.begin("stream", "--label", label) as stream:
        assert [stream.line().endswith("ready\n") for _ in jobs] == [True, True]
    since = datetime.now(UTC).isoformat()
    with alice.begin("stream", "--label", label, "--since", since) as stream:
        for job in jobs:
            alice("signal", job, "USR1")
        assert sorted(stream.end().stdout.splitlines()) == [b"a | done", b"b | done"]
    early = started(alice, TOLD)
    with alice.begin("stream", jobs[0], early, "--since", "2999-01-01") as stream:
        alice("signal", early, "USR1")
        assert stream.end() == Finished(code=0, stdout=b"", stderr="")


def test_a_line_in_two_parts(alice: Program) -> None:
    """A line that is half there waits for its other half; nothing comes between, and an end ends it."""
    half = started(alice, TOLD.replace("echo ready", "printf ready-"), "--name", "half")
    other = started(alice, TOLD, "--name", "other")
    with alice.begin("stream", half, other) as stream:
        assert stream.line() == "other | ready\n"
        alice("signal", half, "USR1")
        assert stream.line() == "half  | ready-done\n"
        alice("signal", other, "USR1")
        assert stream.end().stdout == b"other | done\n"
    alice("stream", half, code=0)


def test_no_follow(alice: Program, label: str) -> None:
    """What there is: job by job, the oldest first, and no waiting for a job that runs."""
    ended(alice, "seq 3", "--name", "ended", "--label", label)
    running = started(alice, "printf 1; exec sleep 600", "--name", "runs", "--label", label)
    with alice.begin("stream", running) as stream:
        assert stream.read(1) == b"1"
    shown = b"ended | 1\nended | 2\nended | 3\nruns  | 1\n"
    assert alice("stream", "--label", label, "--no-follow").stdout == shown
    assert alice("stream", "--label", label, "--state", "finished").stdout == shown[:30]
    assert alice("stream", "--label", label, "--state", "RUNNING", "--no-follow").stdout == b"runs | 1\n"
    assert alice("stream", running, "--prefix", "--no-follow").stdout == b"runs | 1\n"
    alice("stop", running, "--grace", "0")


def test_no_such_jobs(alice: Program, label: str) -> None:
    """No jobs with a label are no error."""
    done = alice("stream", "--label", label)
    assert (done.stdout, done.complaint) == (b"", "there are no such jobs")


def test_much_at_once(server: Server, alice: Program, label: str) -> None:
    """Many megabytes from jobs that write at the same time: every byte, each job's in order, no line torn."""
    scripts = {f"seq{n}": f"seq {n}00000 {n}99999" for n in (1, 2, 3)} | {"zeros": "head -c 5000000 /dev/zero"}
    jobs = {
        name: started(alice, TOLD.replace("echo done", script), "--name", name, "--label", label)
        for name, script in scripts.items()
    }
    with alice.begin("stream", "--label", label) as stream:
        assert all(stream.line().endswith(" | ready\n") for _ in jobs)
        with client_of(server, alice) as client:
            for job_id in jobs.values():
                client.signal(job_id, signal.SIGUSR1)
        outputs = told_apart(stream.end().stdout)
    for n in (1, 2, 3):
        assert outputs[f"seq{n}"] == b"".join(b"%d\n" % number for number in range(n * 100_000, (n + 1) * 100_000))
    whole, rest = divmod(5_000_000, MAX_LINE_BYTES)
    assert outputs["zeros"] == (bytes(MAX_LINE_BYTES) + b"\n") * whole + bytes(rest) + b"\n"
    assert alice("stream", jobs["zeros"]).stdout == b"ready\n" + bytes(5_000_000)


def test_a_job_that_is_not_there(server: Server, alice: Program) -> None:
    """What cannot be read is told with its id, and the code at the end; the others are complete."""
    job_id = ended(alice, "echo out", "--name", "mine")
    other = ended(program_of(server, "bob"), "echo secret")
    done = alice("stream", "no-such-job", job_id, other, code=1)
    assert done.stdout == b"mine | out\n"
    assert done.stderr == f"jobworker: no job 'no-such-job'\njobworker: no job '{other}'\n"


@pytest.mark.parametrize(
    "words, complaint",
    [
        (["id-a", "id-b", "--offset", "1"], "--offset is for one job"),
        (["--label", "a=b", "--offset", "1"], "--offset is for one job"),
        (["id-a", "--label", "a=b"], "not both"),
        (["-j", "id-a", "id-b"], "-j"),
        ([], "give the id of a job"),
    ],
)
def test_wrong_words(alice: Program, words: list[str], complaint: str) -> None:
    """What cannot be meant is refused."""
    assert complaint in alice("stream", *words, code=2).complaint


def test_on_a_terminal(alice: Program) -> None:
    """On a terminal each job has a colour, unless none is wanted; the output has none of ours."""
    jobs = [ended(alice, "printf 'x\r'; echo y", "--name", name) for name in "ab"]
    first, second = (b"\x1b[%dm%s | \x1b[0m" % (colour, name) for colour, name in ((36, b"a"), (33, b"b")))
    for environ, (one, other) in (({}, (first, second)), ({"NO_COLOR": "1"}, (b"a | ", b"b | "))):
        controller, terminal = pty.openpty()
        with subprocess.Popen(
            [JOBWORKER, "stream", *jobs], env={**alice.environ, "TERM": "xterm", **environ}, stdout=terminal
        ) as stream:
            os.close(terminal)
            with open(controller, "rb", buffering=0) as screen:  # noqa: PTH123 -- a descriptor has no path
                expected = one + b"x\r" + one + b"y\r\n" + other + b"x\r" + other + b"y\r\n"
                shown = b""
                while len(shown) < len(expected):
                    shown += screen.read(4096)
                assert shown == expected
            assert stream.wait(LIMIT) == 0


def test_head(alice: Program) -> None:
    """A reader that has enough ends it quietly."""
    jobs = [started(alice, "while :; do echo more; sleep 0.05; done") for _ in range(2)]
    with alice.begin("stream", *jobs) as stream:
        assert stream.line().endswith(" | more\n")
        stream.close_output()
        done = stream.end()
    assert (done.code, done.stderr) == (141, "")
    for job_id in jobs:
        alice("stop", job_id, "--grace", "0")


def test_ctrl_c(alice: Program) -> None:
    """It leaves at once, without a word, and the jobs run on."""
    jobs = [started(alice, TOLD) for _ in range(2)]
    with alice.begin("stream", *jobs) as stream:
        assert {stream.line() for _ in jobs} == {f"{job_id[:8]} | ready\n" for job_id in jobs}
        stream.press_ctrl_c()
        done = stream.end()
    assert (done.code, done.stderr.strip()) == (130, "")
    for job_id in jobs:
        assert alice("status", job_id, "--output", "json").json["state"] == "RUNNING"
        alice("stop", job_id, "--grace", "0")


def test_a_crash_of_the_server(tmp_path: Path) -> None:
    """A kill -9 of the daemon in the middle costs no line of any job, and one whose daemon stays away says so once."""
    with ExitStack() as commands:
        with running_server(tmp_path, stop_jobs=False) as server:
            alice = program_of(server, "alice")
            jobs = [started(alice, TOLD.replace("echo ready", "echo ready; printf half"), "--name", n) for n in "ab"]
            stream, impatient = (
                commands.enter_context(alice.begin("stream", *jobs, *words))
                for words in ((), ("--reconnect-timeout", "200ms"))
            )
            for watcher in (stream, impatient):
                assert sorted(watcher.line() for _ in jobs) == ["a | ready\n", "b | ready\n"]
            server.end(signal.SIGKILL)
        left = impatient.end()
        assert left.code == 125
        assert left.complaint.startswith("no contact for 0.2 s: nothing listens at ")
        assert sorted(left.text.splitlines()) == ["a | half", "b | half"]
        with running_server(tmp_path, "--listen", server.address, authority=server.authority):
            for job_id, line in zip(jobs, ("a | halfdone\n", "b | halfdone\n"), strict=True):
                alice("signal", job_id, "USR1")
                assert stream.line() == line
            assert stream.end() == Finished(code=0, stdout=b"", stderr="")


def test_more_than_the_server_allows(tmp_path: Path) -> None:
    """Ended jobs need one place among a user's streams; a running one without a place is told, with the bound."""
    with running_server(tmp_path, "--max-followers-per-user", "1") as server:
        alice = program_of(server, "alice")
        jobs = [ended(alice, f"echo {n}", "--name", f"{n}") for n in range(10)]
        assert alice("stream", *jobs).text == "".join(f"{n} | {n}\n" for n in range(10))
        running = [started(alice, TOLD, "--name", name) for name in "ab"]
        with alice.begin("stream", *running) as stream:
            assert sorted(stream.line() for _ in running) == ["a | ready\n", "b | ready\n"]
            refused = re.fullmatch(
                r"job (\S+): the limit of 1 open streams and waits per user is reached", stream.complaint()
            )
            assert refused
            for job_id in running:
                alice("signal", job_id, "USR1")
            done = stream.end()
        followed = "b" if refused[1] == running[0] else "a"
        assert (done.code, done.text, done.stderr) == (1, f"{followed} | done\n", "")


def test_pages(server: Server, label: str) -> None:
    """More jobs than a page of the list has are all written, in the order in which they were started."""
    carol = program_of(server, "carol")
    labels = dict([label.split("=")])
    with client_of(server, carol) as client:
        numbers = range(DEFAULT_PAGE_SIZE + 1)
        jobs = [client.start(["echo", f"{number}"], labels=labels, name=f"job{number}") for number in numbers]
        for job in jobs:
            client.wait(job.id)
    done = carol("stream", "--label", label)
    assert done.text == "".join(f"{f'job{number}':6} | {number}\n" for number in numbers)
