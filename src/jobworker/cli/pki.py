"""`jobworker pki`: a small certificate authority for servers and their users."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from jobworker.auth.roles import Role
from jobworker.cli.exits import USAGE, CliError
from jobworker.cli.options import examples, output_option
from jobworker.cli.text import printable, say

if TYPE_CHECKING:  # it loads the cryptography library, which takes longer than all the rest of --help
    from jobworker.auth.inspection import CertificateInfo


_directory_option = click.option(
    "--dir",
    "directory",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="The directory of the authority.",
)
_host_option = click.option(
    "--host",
    "hosts",
    metavar="NAME",
    multiple=True,
    required=True,
    help="A DNS name or IP address that clients reach the server by. Repeat it for several.",
)


@click.group()
def pki() -> None:
    """Make and look at certificates.

    Every call to a server needs a certificate that its authority issued. `init` makes the authority, `issue` a
    certificate for each person or program that may call. Certificates of an authority that you have already work as
    well: what a client's needs is the extension 1.2.840.10070.8.1 = ASN1:UTF8String:user (or admin).
    """


@pki.command(epilog=examples("jobworker pki init --dir pki --host build1.example.org --host 10.0.0.7"))
@_directory_option
@_host_option
def init(directory: Path, hosts: tuple[str, ...]) -> None:
    """Make an authority and a server certificate.

    Writes ca.crt, ca.key, server.crt and server.key. Nothing that exists is overwritten.
    """
    from jobworker.auth.pki_directory import PkiDirectory

    with _failing_in_one_line():
        place = PkiDirectory(directory)
        server = place.create(hosts)
    authority = place.certificate_of("ca")
    say(
        f"made the authority {authority} and the server certificate {server.certificate}, "
        f"valid until {_date(server.not_after)}"
    )
    say(f"keep {place.key_of('ca')} secret: whoever has it can be anybody; the server does not need it")
    say("next:")
    _show_commands(
        f"jobworker serve --server-cert {server.certificate} --server-key {server.key} --client-ca {authority} "
        "--state-dir DIR",
        f"jobworker pki issue NAME --role user --dir {directory}",
    )


@pki.command("issue-server", epilog=examples("jobworker pki issue-server build2 --dir pki --host build2.example.org"))
@click.argument("name", default="server")
@_directory_option
@_host_option
@click.option("--days", type=int, help="How long it is valid; 365 by default, at most 825.")
def issue_server(name: str, directory: Path, hosts: tuple[str, ...], days: int | None) -> None:
    """Issue another server certificate.

    For another server, or for the same one before the old certificate ends. Writes NAME.crt and NAME.key ("server" by
    default). Nothing that exists is overwritten: choose another name, or move the old files away first. A running
    server reads its files again when they change.
    """
    from jobworker.auth.pki import SERVER_DAYS
    from jobworker.auth.pki_directory import PkiDirectory

    with _failing_in_one_line():
        issued = PkiDirectory(directory).issue_server(name, hosts, days=SERVER_DAYS if days is None else days)
    say(
        f"issued {issued.certificate} for {', '.join(hosts)}, valid until {_date(issued.not_after)}; "
        f"its key is {issued.key}"
    )


@pki.command(
    epilog=examples(
        "jobworker pki issue alice --role user --dir pki", "jobworker pki issue ops --role admin --dir pki --days 30"
    )
)
@click.argument("name")
@click.option(
    "--role",
    "roles",
    type=click.Choice([role.value for role in Role]),
    multiple=True,
    required=True,
    help="user: runs jobs and reaches its own. admin: reaches everybody's. Repeat it for both.",
)
@_directory_option
@click.option("--days", type=int, help="How long it is valid; 90 by default, at most 365.")
def issue(name: str, roles: tuple[str, ...], directory: Path, days: int | None) -> None:
    """Issue a client certificate.

    Its holder is NAME to the server. Writes NAME.crt and NAME.key. Nothing that exists is overwritten. Nobody can call
    a certificate back, so let it end when its holder's need does.
    """
    from jobworker.auth.pki import CLIENT_DAYS
    from jobworker.auth.pki_directory import PkiDirectory

    with _failing_in_one_line():
        place = PkiDirectory(directory)
        issued = place.issue_client(name, [Role(role) for role in roles], days=CLIENT_DAYS if days is None else days)
    authority = place.certificate_of("ca")
    say(f"issued {issued.certificate} with role {', '.join(sorted(set(roles)))}, valid until {_date(issued.not_after)}")
    say(f"give {name} these three files, the key in secret: {issued.certificate} {issued.key} {authority}; then:")
    _show_commands(
        f"jobworker profile add NAME --server HOST:PORT --ca {authority} --cert {issued.certificate} --key {issued.key}"
    )


@pki.command(epilog=examples("jobworker pki show alice.crt", "jobworker pki show server.crt --output json"))
@click.argument("file", type=click.Path(dir_okay=False, exists=True, path_type=Path))
@output_option
def show(file: Path, output: str) -> None:
    """Show whose certificate FILE is, its roles and its dates."""
    from jobworker.auth.inspection import inspect_certificate
    from jobworker.auth.pki import PkiError

    now = datetime.now(UTC)
    with _failing_in_one_line():
        try:
            info = inspect_certificate(file.read_bytes(), now=now)
        except PkiError as error:
            raise PkiError(f"{file} {error}") from None
    if output == "json":
        import json

        click.echo(json.dumps(_json(info), indent=2, ensure_ascii=False))
        return
    for label, value in _rows(info, now):
        click.echo(f"{label:<11}  {printable(value)}")
    for warning in info.warnings:
        say(f"warning: {warning}")


def _rows(info: CertificateInfo, now: datetime) -> Iterator[tuple[str, str]]:
    yield "name", "none" if info.name is None else info.name
    yield "usable as", ", ".join(info.uses) or "neither server nor client"
    if info.roles is not None:
        yield "roles", ", ".join(info.roles)
    if info.hosts:
        yield "hosts", ", ".join(info.hosts)
    yield "subject", info.subject
    yield "issuer", info.issuer
    yield "serial", info.serial
    yield "valid from", f"{info.not_before:%Y-%m-%d %H:%M:%S} UTC"
    yield "valid until", f"{info.not_after:%Y-%m-%d %H:%M:%S} UTC ({_distance(info.not_after, now)})"
    yield "key", info.key
    yield "sha256", info.sha256


def _json(info: CertificateInfo) -> dict[str, object]:
    return {
        "name": info.name,
        "uses": info.uses,
        "roles": info.roles,
        "hosts": info.hosts,
        "subject": info.subject,
        "issuer": info.issuer,
        "serial": info.serial,
        "not_before": f"{info.not_before:%Y-%m-%dT%H:%M:%SZ}",
        "not_after": f"{info.not_after:%Y-%m-%dT%H:%M:%SZ}",
        "key": info.key,
        "sha256": info.sha256,
        "warnings": info.warnings,
    }


def _distance(end: datetime, now: datetime) -> str:
    days = round(abs(end - now) / timedelta(days=1))
    amount = "less than a day" if days < 1 else "1 day" if days == 1 else f"{days} days"
    return f"in {amount}" if end > now else f"{amount} ago"


def _date(end: datetime) -> str:
    return f"{end:%Y-%m-%d}"


def _show_commands(*commands: str) -> None:
    """Show commands to copy, on stderr: stdout has the asked-for data alone."""
    for command in commands:
        click.echo(f"  {command}", err=True)


@contextmanager
def _failing_in_one_line() -> Generator[None]:
    from jobworker.auth.pki import PkiError
    from jobworker.core.errors import InvalidArgumentError

    try:
        yield
    except InvalidArgumentError as error:
        what = "NAME" if error.field == "name" else f"--{error.field}"
        raise CliError(f"{what}: {error.problem}", USAGE) from None
    except PkiError as error:
        raise CliError(str(error)) from None
    except OSError as error:
        raise CliError(f"{error.filename}: {error.strerror}") from None
