"""`jobworker profile`: name a server and the certificate to use with it, once."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import click

from jobworker.cli import text
from jobworker.cli.exits import CliError
from jobworker.cli.options import client_flags, examples, output_option, profile_fields
from jobworker.cli.profiles import Profile, load_profiles, profiles_path, save_profiles


@click.group()
def profile() -> None:
    """Name a server and your certificate for it, once.

    A profile holds what --server, --ca, --cert and --key say; flags and JOBWORKER_* variables win over it. The first
    one that you add is used from then on; choose another with `jobworker profile use` or --profile.
    """


@profile.command(
    epilog=examples(
        "jobworker profile add build --server build1.example.org:8443 --ca ca.crt --cert alice.crt --key alice.key"
    )
)
@click.argument("name")
@profile_fields
@click.pass_context
def add(ctx: click.Context, name: str) -> None:
    """Add a profile.

    Its files may come later; those that are there have to fit each other.
    """
    path = profiles_path(os.environ)
    flags = client_flags(ctx)
    files = {role: str(Path(flags[role]).absolute()) for role in ("ca", "cert", "key") if role in flags}
    missing = [file for file in files.values() if not Path(file).exists()]
    warnings = _checked({role: file for role, file in files.items() if file not in missing})
    profiles = load_profiles(path).with_profile(name, Profile(server=flags.get("server"), **files))
    save_profiles(path, profiles)
    for file in missing:
        text.say(f"added, although there is no file {file} yet")
    for warning in warnings:
        text.say(f"warning: {warning}")
    text.say(f"added profile {name}" + (", which is used from now on" if profiles.current == name else ""))


def _checked(files: Mapping[str, str]) -> list[str]:
    """Warnings of the dates of certificates.

    Raises `CliError` unless these are certificates and a key, by their roles, that fit each other.
    """
    from jobworker.auth.inspection import validity_warnings
    from jobworker.client.credentials import PemFile
    from jobworker.client.fit import first_certificate, misfit
    from jobworker.core.errors import ServerUnavailableError

    try:
        read = {role: PemFile.read(file, role) for role, file in files.items()}
    except ServerUnavailableError as error:
        raise CliError(str(error)) from None
    problem = misfit(ca=read.get("ca"), cert=read.get("cert"), key=read.get("key"))
    if problem is not None:
        raise CliError(problem)
    now = datetime.now(UTC)
    return [
        f"{file.name}: {warning}"
        for role, file in read.items()
        if role != "key"
        for warning in validity_warnings(first_certificate(file), now)
    ]


@profile.command("list", epilog=examples("jobworker profile list", "jobworker profile list --output json"))
@output_option
def list_profiles(output: str) -> None:
    """List the profiles; the one in use is marked with a star."""
    profiles = load_profiles(profiles_path(os.environ))
    named = profiles.by_name.items()
    if output == "json":
        values = [{"name": name, "current": name == profiles.current, **asdict(one)} for name, one in named]
        click.echo(json.dumps(values, indent=2))
        return
    rows = [("", "NAME", "SERVER", "CERTIFICATE")] + [
        (
            "*" if name == profiles.current else "",
            name,
            text.printable(one.server or "-"),
            text.printable(one.cert or "-"),
        )
        for name, one in named
    ]
    widths = [max(text.width(cell) for cell in cells) for cells in zip(*rows, strict=True)]
    for line in text.table(rows, widths[:-1]):
        click.echo(line)


@profile.command(epilog=examples("jobworker profile use build"))
@click.argument("name")
def use(name: str) -> None:
    """Use a profile from now on."""
    path = profiles_path(os.environ)
    save_profiles(path, load_profiles(path).using(name))


@profile.command(epilog=examples("jobworker profile remove build"))
@click.argument("name")
def remove(name: str) -> None:
    """Remove a profile; the files that it names stay."""
    path = profiles_path(os.environ)
    save_profiles(path, load_profiles(path).without(name))
