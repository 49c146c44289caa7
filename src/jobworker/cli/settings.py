"""Which server the client commands ask, and with which certificate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from jobworker.cli.exits import UNASKED, USAGE, CliError
from jobworker.cli.profiles import FIELDS, Profile, load_profiles, profiles_path
from jobworker.core.address import Address

PROFILE = "profile"

_MEANING = {
    "server": "server",
    "ca": "CA certificate of the server",
    "cert": "client certificate",
    "key": "key of the client certificate",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class ClientSettings:
    """What `AsyncClient` takes: the server's address and the paths of three PEM files."""

    server: str
    ca: str
    cert: str
    key: str


def variable(name: str) -> str:
    """What the environment calls a setting."""
    return f"JOBWORKER_{name.upper()}"


def client_settings(*, flags: Mapping[str, str], environ: Mapping[str, str]) -> ClientSettings:
    """The settings that flags, environment and profile say together, each winning over the ones after it.

    The profile is the one that flags or environment name, or else the user's current one. Raises `CliError`.
    """
    said = {name: flags.get(name) or environ.get(variable(name)) for name in (*FIELDS, PROFILE)}
    name = said.pop(PROFILE)
    if name is not None or None in said.values() or "" in said.values():
        profile = _profile(name, environ)
        said = {key: value or getattr(profile, key) for key, value in said.items()}
    values = {key: value for key, value in said.items() if value}
    try:
        if server := values.get("server"):
            Address.parse(server)
    except ValueError as error:
        raise CliError(f"server: {error}", USAGE) from None
    for key, meaning in _MEANING.items():
        if key not in values:
            raise CliError(
                f"no {meaning} is named: give --{key}, set {variable(key)}, or add a profile (`jobworker profile add`)",
                UNASKED,
            )
    return ClientSettings(**{key: value if key == "server" else _expanded(value) for key, value in values.items()})


def _profile(name: str | None, environ: Mapping[str, str]) -> Profile:
    try:
        profiles = load_profiles(profiles_path(environ))
        name = name or profiles.current
        return profiles.named(name) if name else Profile()
    except CliError as error:
        raise CliError(str(error), UNASKED) from None


def _expanded(path: str) -> str:
    return str(Path(path).expanduser()) if path.startswith("~") else path
