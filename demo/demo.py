"""See jobworker work: certificates, a server on loopback, real jobs, and a crash that nobody notices.

Run by `make demo`. Everything lives in a throw-away folder and is gone afterwards, also after a failure or Ctrl-C.
Exits with 0 if all of it went as it should.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

JOBWORKER = str(Path(sys.executable).with_name("jobworker"))
READY = re.compile(r"serving on (\S+)")
PATIENCE = 30.0  # seconds for a step that takes well under one on an idle machine
COLUMNS = 110  # of a command before it is broken
TICKS = [f"tick {i}\n" for i in range(1, 7)]
TICKING = 'for i in 1 2 3 4 5 6; do echo "tick $i"; sleep 0.5; done; exit 7'


class DemoError(Exception):
    """Something did not go as it should."""


def say(text: str) -> None:
    """Explain a step."""
    print(f"\n\033[1m{text}\033[0m" if sys.stdout.isatty() else f"\n{text}", flush=True)


def show(*words: str) -> None:
    """Show a command as a user would type it."""
    line = "  $ jobworker"
    for word in map(shlex.quote, words):
        if len(line) + len(word) > COLUMNS:
            print(f"{line} \\")
            line = "       "
        line += f" {word}"
    print(line, flush=True)


def check(*, expected: object, found: object, what: str) -> None:
    """End the demo unless it found what it expected."""
    if found != expected:
        raise DemoError(f"{what} should have been {expected!r}, and was {found!r}")


def ask(*words: str) -> str:
    """Show a command, run it, show what it prints, and return that."""
    show(*words)
    done = subprocess.run([JOBWORKER, *words], capture_output=True, text=True, timeout=PATIENCE, check=False)
    print("".join(f"  {line}\n" for line in (done.stdout + done.stderr).splitlines()), end="", flush=True)
    check(expected=0, found=done.returncode, what="the exit status")
    return done.stdout.strip()


def watch(*words: str, code: int = 0, on_line: Callable[[int], None] = lambda _count: None) -> list[str]:
    """Show a command and what it prints, line by line as it comes, and return the lines.

    `on_line` is called with the number of lines so far.
    """
    show(*words)
    lines: list[str] = []
    with subprocess.Popen([JOBWORKER, *words], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                print(f"  {line}", end="", flush=True)
                lines.append(line)
                on_line(len(lines))
        except BaseException:
            process.kill()
            raise
    print(f"  (exit status {process.returncode})", flush=True)
    check(expected=code, found=process.returncode, what="the exit status")
    return lines


class Server:
    """A `jobworker serve` that can be killed and started again at the same address."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self.address = "127.0.0.1:0"

    def start(self, *flags: str) -> None:
        """Start it and wait until it serves."""
        words = [
            *("serve", "--listen", self.address, "--state-dir", "state", "--audit-log", "audit.log"),
            *("--server-cert", "pki/server.crt", "--server-key", "pki/server.key", "--client-ca", "pki/ca.crt", *flags),
        ]
        show(*words)
        # in a session of its own, so that Ctrl-C reaches the demo alone, which then stops it
        self._process = subprocess.Popen([JOBWORKER, *words], stderr=subprocess.PIPE, text=True, start_new_session=True)
        assert self._process.stderr is not None
        for line in self._process.stderr:
            print(f"  {line}", end="", flush=True)
            if found := READY.search(line):
                self.address = found[1]
                return
        raise DemoError("the server did not start")

    def kill(self) -> None:
        """Kill it without warning."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """Stop it as an administrator would; it leaves jobs running unless it was started to stop them."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(PATIENCE)


@contextmanager
def scene() -> Generator[Server]:
    """A throw-away folder with certificates, and a server; all of it is gone afterwards, jobs included."""
    folder = Path(tempfile.mkdtemp(prefix="jobworker-demo-"))
    os.chdir(folder)
    server = Server()
    try:
        say(f"All of this happens in {folder}, which is removed at the end.")
        say("1. Certificates. Who you are and what you may do stands in yours; there are no passwords.")
        ask("pki", "init", "--dir", "pki", "--host", "127.0.0.1", "--host", "localhost")
        ask("pki", "issue", "alice", "--role", "user", "--dir", "pki")
        for name in [name for name in os.environ if name.startswith("JOBWORKER_")]:
            del os.environ[name]
        os.environ["JOBWORKER_CONFIG_DIR"] = str(folder / "config")

        say("2. A server, on this machine only. It needs no privileges; as root it runs jobs as nobody.")
        server.start()
        say("   And where you are, once: which server, and your certificate for it.")
        files = ("--ca", "pki/ca.crt", "--cert", "pki/alice.crt", "--key", "pki/alice.key")
        ask("profile", "add", "demo", "--server", server.address, *files)
        yield server
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)  # what follows must not be interrupted
        try:
            leave_nothing(server)
        finally:
            shutil.rmtree(folder)


def leave_nothing(server: Server) -> None:
    """End the server and every job that it or one before it may have left."""
    server.stop()
    if Path("state").exists():
        say("Cleaning up: jobs outlive their server, unless it is told to take them with it.")
        server.start("--stop-jobs-on-exit")
        server.stop()


def play(server: Server) -> None:
    """Play the scenes."""
    say("3. Run a command there: its output comes here while it runs, and its exit status becomes ours.")
    script = 'for part in 1 2 3; do echo "part $part, as $(id -un)"; sleep 0.3; done; exit 3'
    watch("run", "--", "sh", "-c", script, code=3)

    say("4. Start one with children, one of which hides in a session of its own, and stop it: nothing of it is left.")
    job = ask("start", "--name", "sleepers", "--", "sh", "-c", "sleep 4242 & setsid sleep 4243 & sleep 4244")
    ask("stop", job)
    ask("status", job)

    say("5. Crash the server with kill -9 while a stream runs. The job ticks on; the stream carries on at the byte.")
    job = ask("start", "--name", "ticking", "--", "sh", "-c", TICKING)

    def crash(count: int) -> None:
        if count == 2:
            say("   -- kill -9 of the server, and then a new one --")
            server.kill()
            server.start()

    lines = watch("stream", job, on_line=crash)
    check(expected=TICKS, found=lines, what="the output")
    say("   Six ticks, none twice, none missing. The job's exit status, 7, was not lost either:")
    watch("wait", job, code=7)

    say("6. What there was, and how each of them ended:")
    ask("list")


def main() -> int:
    """Play it all, and say how it went."""
    try:
        with scene() as server:
            play(server)
    except (DemoError, subprocess.TimeoutExpired) as error:
        say(f"This did not go well: {error}")
        return 1
    except KeyboardInterrupt:
        return 130
    say("Done. Nothing is left of it. `jobworker --help` and README.md go on from here.")
    return 0


def interrupt(*_: object) -> None:
    """Take SIGTERM for Ctrl-C."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, interrupt)
    sys.exit(main())
