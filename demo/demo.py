"""See jobworker work: certificates, a server on loopback, real jobs, and a crash that nobody notices.

Run by `make demo`. Everything lives in a throw-away folder and is gone afterwards, also after Ctrl-C.
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
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path

JOBWORKER = str(Path(sys.executable).with_name("jobworker"))
READY = re.compile(r"serving on (\S+)", re.IGNORECASE)
PATIENCE = 30.0  # seconds for a step that takes well under one on an idle machine
TICKING = 'for i in 1 2 3 4 5 6; do echo "tick $i"; sleep 0.5; done; exit 7'


def say(text: str) -> None:
    """Explain a step."""
    print(f"\n\033[1m{text}\033[0m" if sys.stdout.isatty() else f"\n{text}", flush=True)


def show(*words: str) -> None:
    """Show a command as a user would type it."""
    print(f"  $ {shlex.join(['jobworker', *words])}", flush=True)


def jobworker(*words: str, expect: int = 0) -> str:
    """Show a command, run it, show and return what it prints. Exits if its status is not the expected one."""
    show(*words)
    done = subprocess.run([JOBWORKER, *words], stdout=subprocess.PIPE, text=True, timeout=PATIENCE, check=False)
    print("".join(f"  {line}\n" for line in done.stdout.splitlines()), end="", flush=True)
    if done.returncode != expect:
        sys.exit(f"demo: expected exit status {expect}, got {done.returncode}")
    return done.stdout.strip()


class Server:
    """A `jobworker serve` process that can be killed and started again at the same address."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[str] | None = None
        self.address = "127.0.0.1:0"

    def start(self) -> None:
        """Start it and wait until it listens."""
        pki = self._folder / "pki"
        words = [
            *("serve", "--listen", self.address, "--state-dir", str(self._folder / "state")),
            *("--server-cert", str(pki / "server.crt"), "--server-key", str(pki / "server.key")),
            *("--client-ca", str(pki / "ca.crt")),
        ]
        show(*words)
        self._process = subprocess.Popen([JOBWORKER, *words], stderr=subprocess.PIPE, text=True)
        assert self._process.stderr is not None
        for line in self._process.stderr:
            if found := READY.search(line):
                self.address = found[1]
                return
            print(f"  {line}", end="")
        sys.exit("demo: the server did not start")

    def kill(self) -> None:
        """Kill it without warning."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """Stop it as an administrator would; it leaves jobs running."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(PATIENCE)


@contextmanager
def scene() -> Generator[Server]:
    """A throw-away folder with certificates, and a server; all of it is gone afterwards, jobs included."""
    with ExitStack() as cleanup:
        folder = Path(tempfile.mkdtemp(prefix="jobworker-demo-"))
        cleanup.callback(shutil.rmtree, folder)
        say("1. Certificates. Who you are and what you may do stands in yours; there are no passwords.")
        pki = str(folder / "pki")
        jobworker("pki", "init", "--dir", pki, "--host", "127.0.0.1", "--host", "localhost")
        jobworker("pki", "issue", "alice", "--role", "user", "--dir", pki)
        for name in [name for name in os.environ if name.startswith("JOBWORKER_")]:
            del os.environ[name]
        os.environ.update(
            JOBWORKER_CA=f"{pki}/ca.crt", JOBWORKER_CERT=f"{pki}/alice.crt", JOBWORKER_KEY=f"{pki}/alice.key"
        )
        server = Server(folder)
        cleanup.callback(server.stop)
        say("2. A server. It needs no privileges; as root it runs jobs as nobody.")
        server.start()
        os.environ["JOBWORKER_SERVER"] = server.address
        cleanup.callback(stop_all_jobs)
        yield server


def stop_all_jobs() -> None:
    """Leave nothing running, whatever has happened."""
    listed = subprocess.run(
        [JOBWORKER, "list", "--state", "RUNNING", "--output", "json"], capture_output=True, text=True, check=False
    )
    for job_id in re.findall(r'"id": ?"([0-9a-f-]{36})"', listed.stdout):
        subprocess.run([JOBWORKER, "stop", job_id, "--grace", "0s"], capture_output=True, check=False)


def main() -> int:
    """Play all scenes."""
    with scene() as server:
        say("3. Run a command there: live output here, and its exit status is ours.")
        jobworker("run", "--", "sh", "-c", "echo hello from $(uname -n) as $(id -un); exit 3", expect=3)

        say("4. Start one that takes its time, with children, and stop it: the whole process tree ends.")
        job = jobworker("start", "--name", "sleepers", "--", "sh", "-c", "sleep 4242 & setsid sleep 4243 & sleep 4244")
        jobworker("stop", job)
        jobworker("status", job)

        say(
            "5. Crash the server with kill -9 while a stream runs. The job ticks on; the stream carries on at the byte."
        )
        job = jobworker("start", "--name", "ticking", "--", "sh", "-c", TICKING)
        show("stream", job)
        stream = subprocess.Popen([JOBWORKER, "stream", job], stdout=subprocess.PIPE, text=True)
        assert stream.stdout is not None
        seen: list[str] = []
        for line in stream.stdout:
            print(f"  {line}", end="", flush=True)
            seen.append(line)
            if len(seen) == 2:
                say("   -- kill -9 of the server, and a new one --")
                server.kill()
                server.start()
        stream.wait(PATIENCE)
        if seen != [f"tick {i}\n" for i in range(1, 7)]:
            sys.exit(f"demo: the stream was not complete: {seen}")
        say("   Six ticks, none twice, none missing. And the exit code was not lost:")
        jobworker("wait", job, expect=7)

        say("6. What was there:")
        jobworker("list")
    say("Done. The server is stopped, and the folder is gone.")
    return 0


def end(_number: int, _frame: object) -> None:
    """Clean up, as after Ctrl-C."""
    sys.exit(143)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, end)
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
