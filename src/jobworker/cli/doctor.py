"""`jobworker doctor`: whether a server would start here, and what to do about what does not work."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jobworker.cli import text
from jobworker.cli.exits import REFUSED
from jobworker.cli.options import output_option
from jobworker.cli.serve import with_settings
from jobworker.config import SettingsError, load_known_settings

if TYPE_CHECKING:
    from jobworker.server.doctor.finding import Finding

_HELP = """Say whether a server would start here, and what to do about what is wrong.

It takes the settings of `serve`, from the same places, and looks at what is given of them; run it as the server's user,
where the server runs. Things are tried and put back as they were. The exit code is 0 if `serve` would start with these
settings, and 1 if not.

\b
Examples:
  jobworker doctor
  jobworker doctor --config /etc/jobworker/server.toml --client-cert alice.crt
  jobworker doctor --cgroups require --output json | jq -r '.[] | select(.status == "error") | .name'
"""

_COLOURS = {"ok": "green", "warning": "yellow", "error": "red", "skipped": None}
_STATUS_COLUMNS = max(map(len, _COLOURS))


@click.command(help=_HELP)
@with_settings
@click.option(
    "--client-cert", type=click.Path(path_type=Path), metavar="PATH", help="A client's certificate to look at, too."
)
@output_option
def doctor(file: Path | None, client_cert: Path | None, output: str, **flags: Any) -> int:  # noqa: ANN401 -- as in serve
    """Examine this machine."""
    findings = list(_examine(file, client_cert, flags))
    if output == "json":
        import json

        click.echo(json.dumps([asdict(finding) for finding in findings], indent=2, ensure_ascii=False))
    else:
        _print(findings)
    errors = [finding.name for finding in findings if finding.status == "error"]
    text.say(f"`jobworker serve` would not start: see {', '.join(errors)}" if errors else _verdict(findings))
    return REFUSED if errors else 0


def _examine(file: Path | None, client_cert: Path | None, flags: dict[str, Any]) -> Iterator[Finding]:
    from jobworker.server.doctor.archive import examine_archive
    from jobworker.server.doctor.certificates import examine_certificates
    from jobworker.server.doctor.entrance import examine_audit_log, examine_port
    from jobworker.server.doctor.finding import error, ok, skipped
    from jobworker.server.doctor.kernel import examine_cgroups, examine_job_user, examine_kernel
    from jobworker.server.doctor.state import examine_state_dir

    try:
        settings, unset = load_known_settings(flags=flags, environ=os.environ, file=file)
    except SettingsError as problem:
        yield error("settings", str(problem), "`jobworker serve --help` and docs/configuration.md describe them")
        yield from examine_kernel()
        return
    if unset:
        yield skipped("settings", f"not given, and not examined: {', '.join(unset)}")
    else:
        yield ok("settings", "complete")
    given = {
        name: None if name in unset else getattr(settings, name)
        for name in ("state_dir", "server_cert", "server_key", "client_ca")
    }
    state_dir = given.pop("state_dir")
    yield from examine_kernel()
    yield from examine_cgroups(settings.cgroups, settings.limits, state_dir)
    yield from examine_job_user(settings.job_user)
    yield from examine_state_dir(state_dir, settings.durability, settings.output_watch)
    yield from examine_archive(settings.archive_url)
    yield from examine_certificates(**given, client_cert=client_cert)
    yield from examine_port(settings.listen)
    yield from examine_audit_log(settings.audit_log)


def _verdict(findings: Iterable[Finding]) -> str:
    for finding in findings:
        if finding.name == "settings" and finding.status == "skipped":
            return "nothing here keeps `jobworker serve` from starting; it needs the settings that are not given"
    return "`jobworker serve` would start"


def _print(findings: list[Finding]) -> None:
    widths = (max(len(finding.name) for finding in findings), _STATUS_COLUMNS)
    rows: list[tuple[str, str, str]] = []
    for finding, following in zip_longest(findings, findings[1:]):
        status = text.coloured(finding.status, _COLOURS[finding.status])
        rows.append((finding.name, status, text.printable(finding.detail)))
        if finding.remedy is not None and (following is None or following.remedy != finding.remedy):
            rows.append(("", "", f"-> {text.printable(finding.remedy)}"))
    for line in text.table(rows, widths):
        click.echo(line)
