"""Named sets of client settings, kept in the user's configuration folder."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path

import click

from jobworker.cli.exits import CliError

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")  # TOML's bare keys


@dataclass(frozen=True, kw_only=True, slots=True)
class Profile:
    """Where a server is and how to prove oneself to it; any of it may be left to flags and the environment."""

    server: str | None = None
    ca: str | None = None
    cert: str | None = None
    key: str | None = None


FIELDS = tuple(one.name for one in fields(Profile))


@dataclass(frozen=True, kw_only=True, slots=True)
class Profiles:
    """All profiles of a user; `current` is the one that is used when none is named."""

    current: str | None = None
    by_name: Mapping[str, Profile] = field(default_factory=dict[str, Profile])

    def named(self, name: str) -> Profile:
        """A profile. Raises `CliError`."""
        if name not in self.by_name:
            known = ", ".join(self.by_name) or "none"
            raise CliError(f"there is no profile {name!r} (there is: {known}); add it with `jobworker profile add`")
        return self.by_name[name]

    def with_profile(self, name: str, profile: Profile) -> Profiles:
        """With one more, which is the current one if it is the first. Raises `CliError` if the name is taken."""
        if not _NAME.fullmatch(name):
            raise CliError(f"{name!r} is no name of a profile; use 1 to 64 of A-Z a-z 0-9 _ -")
        if name in self.by_name:
            raise CliError(f"there is a profile {name!r} already; remove it first (`jobworker profile remove {name}`)")
        return replace(self, by_name={**self.by_name, name: profile}, current=self.current or name)

    def without(self, name: str) -> Profiles:
        """Without one of them; if it was the current one, there is none any more. Raises `CliError`."""
        self.named(name)
        rest = {other: profile for other, profile in self.by_name.items() if other != name}
        return Profiles(by_name=rest, current=None if name == self.current else self.current)

    def using(self, name: str) -> Profiles:
        """With another current one. Raises `CliError`."""
        self.named(name)
        return replace(self, current=name)


def profiles_path(environ: Mapping[str, str]) -> Path:
    """The file of the profiles: in JOBWORKER_CONFIG_DIR, or else in the user's configuration folder."""
    return Path(environ.get("JOBWORKER_CONFIG_DIR") or click.get_app_dir("jobworker")) / "profiles.toml"


def load_profiles(path: Path) -> Profiles:
    """Read them; where there is no file, there are none. Raises `CliError`."""
    import tomllib

    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        named = {name: Profile(**values) for name, values in content.pop("profiles", {}).items()}
        return Profiles(by_name=named, **content)
    except FileNotFoundError:
        return Profiles()
    except OSError as error:
        raise CliError(f"cannot read the profiles in {path}: {error.strerror}") from None
    except (ValueError, TypeError, AttributeError) as error:  # no TOML, no UTF-8, or not what is written here
        raise CliError(f"the profiles in {path} cannot be understood ({error}); mend or remove that file") from None


def save_profiles(path: Path, profiles: Profiles) -> None:
    """Write them, readable by the user alone. Raises `CliError`."""
    lines = [f"current = {_toml(profiles.current)}"] if profiles.current else []
    for name, profile in profiles.by_name.items():
        lines += ["", f"[profiles.{name}]"]
        lines += [f"{key} = {_toml(value)}" for key, value in asdict(profile).items() if value is not None]
    new = path.with_suffix(".new")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        new.unlink(missing_ok=True)
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")
        new.replace(path)
    except UnicodeEncodeError:
        raise CliError("a path in a profile must be UTF-8") from None
    except OSError as error:
        raise CliError(f"cannot write the profiles to {path}: {error.strerror}") from None


def _toml(text: str) -> str:
    # Every JSON string is a TOML string, but for DEL, which TOML wants escaped.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
