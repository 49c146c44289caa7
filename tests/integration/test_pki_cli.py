"""`jobworker pki` from the outside: a real process, its files, its two outputs and its exit status."""

from __future__ import annotations

import json
import ssl
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from jobworker.auth.identity import principal_from_pem
from jobworker.auth.pki import CLIENT_DAYS, MAX_CLIENT_DAYS, MAX_SERVER_DAYS, SERVER_DAYS
from jobworker.auth.roles import Role
from tests.support import pki as support

Run = Callable[..., subprocess.CompletedProcess[str]]

_PKI = [str(Path(sys.executable).with_name("jobworker")), "pki"]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run `jobworker pki ARGUMENTS` in a folder of the test's own."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*_PKI, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False)

    return run


@pytest.fixture
def pki(tmp_path: Path, run: Run) -> Path:
    """A folder in which `init` has been run."""
    assert run("init", "--dir", "pki", "--host", "localhost", "--host", "127.0.0.1").returncode == 0
    return tmp_path / "pki"


def _contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_init_writes_four_files_and_says_what_comes_next(tmp_path: Path, run: Run) -> None:
    """The files are there, keys for their owner alone; stdout is empty, and stderr leads on."""
    done = run("init", "--dir", "pki", "--host", "localhost")
    assert (done.returncode, done.stdout) == (0, "")
    assert "--server-cert pki/server.crt --server-key pki/server.key --client-ca pki/ca.crt" in done.stderr
    assert "jobworker pki issue NAME --role user --dir pki" in done.stderr
    modes = {path.name: f"{path.stat().st_mode & 0o777:o}" for path in (tmp_path / "pki").iterdir()}
    assert modes == {"ca.crt": "644", "ca.key": "600", "server.crt": "644", "server.key": "600"}
    assert f"{(tmp_path / 'pki').stat().st_mode & 0o777:o}" == "700"


def test_issue_writes_a_pair_and_says_whom_to_give_it(pki: Path, run: Run) -> None:
    """A client's certificate and key are there, and openssl finds nothing wrong with them."""
    done = run("issue", "alice", "--role", "user", "--role", "admin", "--dir", "pki", "--days", "30")
    assert (done.returncode, done.stdout) == (0, "")
    assert "issued pki/alice.crt with role admin, user, valid until 20" in done.stderr
    assert "--ca pki/ca.crt --cert pki/alice.crt --key pki/alice.key" in done.stderr
    assert f"{(pki / 'alice.key').stat().st_mode & 0o777:o}" == "600"
    command = ["openssl", "verify", "-x509_strict", "-purpose", "sslclient", "-CAfile", "ca.crt", "alice.crt"]
    assert subprocess.run(command, cwd=pki, capture_output=True, check=False).stdout == b"alice.crt: OK\n"


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_a_client_and_a_server_know_each_other_by_them(pki: Path, run: Run, host: str) -> None:
    """Both ends finish a mutual TLS 1.3 handshake under strict rules, and the server learns who called."""
    assert run("issue", "alice", "--role", "user", "--dir", "pki").returncode == 0
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.verify_mode = ssl.CERT_REQUIRED
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for context, name in ((server, "server"), (client, "alice")):
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_STRICT
        context.load_cert_chain(pki / f"{name}.crt", pki / f"{name}.key")
        context.load_verify_locations(pki / "ca.crt")
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    caller = client.wrap_bio(to_client, to_server, server_hostname=host)
    called = server.wrap_bio(to_server, to_client, server_side=True)
    for end in (caller, called, caller, called):  # hello; hello, certificate; certificate, finished; all that read
        try:
            end.do_handshake()
        except ssl.SSLWantReadError:
            continue
    der = called.getpeercert(binary_form=True)
    assert der is not None
    principal = principal_from_pem(ssl.DER_cert_to_PEM_cert(der).encode())
    assert (principal.name, principal.roles) == ("alice", {Role.USER})


@pytest.mark.parametrize(
    "arguments, problem",
    [
        (["init", "--dir", "pki", "--host", "localhost"], "pki has an authority already"),
        (["issue", "alice", "--role", "user", "--dir", "pki"], "pki/alice.key exists"),
        (["issue-server", "--dir", "pki", "--host", "localhost"], "pki/server.key exists"),
    ],
)
def test_nothing_is_overwritten(pki: Path, run: Run, arguments: list[str], problem: str) -> None:
    """What is there stays as it is, and one line says what to do instead."""
    assert run("issue", "alice", "--role", "admin", "--dir", "pki").returncode == 0
    before = _contents(pki)
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"jobworker: {problem}, and nothing was changed: ")
    assert done.stderr.count("\n") == 1
    assert _contents(pki) == before


def test_another_server_gets_its_own_certificate(pki: Path, run: Run) -> None:
    """`issue-server NAME` writes NAME.crt and NAME.key for the hosts that are named."""
    done = run("issue-server", "build2", "--dir", "pki", "--host", "build2.example.org", "--days", "825")
    assert (done.returncode, done.stdout) == (0, "")
    command = ["openssl", "verify", "-verify_hostname", "build2.example.org", "-CAfile", "ca.crt", "build2.crt"]
    assert subprocess.run(command, cwd=pki, capture_output=True, check=False).stdout == b"build2.crt: OK\n"


@pytest.mark.parametrize("name", ["../mallory", "/etc/mallory", "sub/mallory", ".mallory"])
def test_no_name_leads_out_of_the_folder(pki: Path, run: Run, name: str) -> None:
    """A name is refused before anything is written anywhere."""
    before = _contents(pki)
    done = run("issue", name, "--role", "user", "--dir", "pki")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"jobworker: NAME: {name!r} cannot be used" in done.stderr
    assert _contents(pki) == before
    assert [path.name for path in pki.parent.iterdir()] == ["pki"]


@pytest.mark.usefixtures("pki")
@pytest.mark.parametrize("command", [["issue", "alice", "--role", "user"], ["issue-server", "build2", "--host", "b"]])
@pytest.mark.parametrize("days", ["0", "-1", "10000"])
def test_days_that_cannot_be(run: Run, command: list[str], days: str) -> None:
    """A number of days out of range is a wrong command line, like every wrong value of an option."""
    done = run(*command, "--dir", "pki", "--days", days)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("jobworker: --days: must be 1 to ")


@pytest.mark.parametrize(
    "arguments, status, problem",
    [
        (["init", "--dir", "new"], 2, "Missing option '--host'"),
        (["init", "--dir", "new", "--host", "localhost:8443"], 2, "--host: 'localhost:8443' is neither"),
        (["issue", "alice", "--dir", "new"], 2, "Missing option '--role'"),
        (["issue", "alice", "--role", "root", "--dir", "new"], 2, "'root' is not one of 'admin', 'user'"),
        (["issue", "alice", "--role", "user", "--dir", "new"], 1, "new/ca.crt is missing: make an authority first"),
        (["show", "new"], 2, "File 'new' does not exist"),
    ],
)
def test_mistakes_are_told_in_a_line_and_change_nothing(
    tmp_path: Path, run: Run, arguments: list[str], status: int, problem: str
) -> None:
    """A wrong command is 2, as everywhere; a command that cannot be done is 1."""
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (status, "")
    assert problem in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_told_in_a_line(tmp_path: Path, run: Run) -> None:
    """The operating system's reason comes with the path."""
    (tmp_path / "file").touch()
    done = run("init", "--dir", "file/pki", "--host", "localhost")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "jobworker: file/pki: Not a directory\n")


@pytest.mark.usefixtures("pki")
def test_show_for_people(run: Run) -> None:
    """One fact a line, and nothing on stderr when there is nothing to warn of."""
    run("issue", "alice", "--role", "user", "--dir", "pki")
    done = run("show", "pki/alice.crt")
    assert (done.returncode, done.stderr) == (0, "")
    shown = dict(line.split("  ", 1) for line in done.stdout.splitlines())
    shown = {label: value.strip() for label, value in shown.items()}
    assert list(shown) == [
        *("name", "usable as", "roles", "subject", "issuer", "serial", "valid from", "valid until", "key", "sha256")
    ]
    assert (shown["name"], shown["usable as"], shown["roles"], shown["key"]) == (
        "alice",
        "client",
        "user",
        "ECDSA P-256",
    )
    assert shown["valid until"].endswith(" UTC (in 90 days)")


@pytest.mark.usefixtures("pki")
def test_show_for_programs(run: Run) -> None:
    """The names of the fields are part of the interface, and every one is always there."""
    for file, expected in {
        "ca.crt": {"uses": ["authority"], "roles": None, "hosts": []},
        "server.crt": {"name": "localhost", "uses": ["server"], "roles": None, "hosts": ["localhost", "127.0.0.1"]},
    }.items():
        done = run("show", f"pki/{file}", "--output", "json")
        assert (done.returncode, done.stderr) == (0, "")
        shown = json.loads(done.stdout)
        assert list(shown) == [
            *("name", "uses", "roles", "hosts", "subject", "issuer", "serial"),
            *("not_before", "not_after", "key", "sha256", "warnings"),
        ]
        assert expected.items() <= shown.items()
        assert shown["not_after"].endswith("Z")


def test_warnings_leave_stdout_alone(tmp_path: Path, run: Run) -> None:
    """What there is to warn of goes to stderr, and into the JSON for programs; the exit status is for failures."""
    support.Authority().client("alice", roles="root", lifetime=support.EXPIRED).write(tmp_path, "alice")
    done = run("show", "alice.crt")
    assert done.returncode == 0
    assert "warning" not in done.stdout
    first, second = done.stderr.splitlines()
    assert first.startswith("jobworker: warning: the server will refuse it: ")
    assert second == "jobworker: warning: it has expired: issue a new one"
    assert json.loads(run("show", "alice.crt", "--output", "json").stdout)["warnings"][1] == second.removeprefix(
        "jobworker: warning: "
    )


def test_show_prints_nothing_that_a_terminal_would_obey(tmp_path: Path, run: Run) -> None:
    """A certificate from a stranger can be looked at without letting it write to the terminal."""
    support.Authority().client("\x1b[2Jalice\r\n").write(tmp_path, "alice")
    done = run("show", "alice.crt")
    assert r"\x1b[2Jalice\r\n" in done.stdout
    assert "\x1b" not in done.stdout + done.stderr


@pytest.mark.usefixtures("pki")
def test_a_key_is_not_shown(run: Run) -> None:
    """A key that is mistaken for a certificate is called one, and stays secret."""
    done = run("show", "pki/ca.key")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "jobworker: pki/ca.key is a private key\n")


def test_help_says_the_lifetimes_that_hold(run: Run) -> None:
    """The help is written without loading what knows the numbers, so this holds them together."""
    assert f"{CLIENT_DAYS} by default, at most {MAX_CLIENT_DAYS}." in run("issue", "--help").stdout
    assert f"{SERVER_DAYS} by default, at most {MAX_SERVER_DAYS}." in run("issue-server", "--help").stdout


def test_help_is_quick() -> None:
    """The cryptography library is loaded by commands that need it, not by the program."""
    code = "import sys, jobworker.cli.pki; print([name for name in sys.modules if 'cryptography' in name])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == b"[]\n"
