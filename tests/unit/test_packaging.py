"""What packaging/ holds is accepted by those who read it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from jobworker.auth.roles import Role
from jobworker.config import SETTINGS, load_settings
from jobworker.core.limits import Limits

PACKAGING = Path(__file__).parents[2] / "packaging"
EXAMPLE = PACKAGING / "server.toml.example"

_COMMENTED_OUT = re.compile(r"^# (?=[a-z_]+ = )", re.MULTILINE)


def test_the_example_can_be_used_as_it_is() -> None:
    """The server takes the file, and what is relative in it is beside it."""
    settings = load_settings(flags={}, environ={}, file=EXAMPLE)
    assert settings.state_dir == Path("/var/lib/jobworker")
    assert settings.server_cert == PACKAGING / "pki" / "server.crt"


def test_the_example_shows_every_setting_with_its_default(tmp_path: Path) -> None:
    """No setting is missing in it, and removing a comment's mark changes nothing but what has no default."""
    full = tmp_path / "server.toml"
    full.write_text(_COMMENTED_OUT.sub("", EXAMPLE.read_text()))
    shown, plain = (load_settings(flags={}, environ={}, file=file) for file in (full, EXAMPLE))
    named = re.findall(r"^([a-z_]+) = ", full.read_text(), re.MULTILINE)
    assert sorted(named) == sorted(SETTINGS)
    commented = {name for name in named if not re.search(rf"^{name} = ", EXAMPLE.read_text(), re.MULTILINE)}
    differing = {name for name in commented if getattr(shown, name) != getattr(plain, name)}
    assert differing == {name for name in commented if SETTINGS[name].default is None}


def test_the_tables_of_the_example_can_be_used(tmp_path: Path) -> None:
    """Without their comment marks, the limits are what they say."""
    full = tmp_path / "server.toml"
    full.write_text(re.sub(r"^#(?=[a-z[])", "", EXAMPLE.read_text(), flags=re.MULTILINE))
    limits = load_settings(flags={}, environ={}, file=full).limits
    assert limits[Role.USER].default == limits[Role.ADMIN].default == Limits(memory=2 * 10**9, pids=500)
    assert (limits[Role.USER].maximum.memory, limits[Role.ADMIN].maximum.memory) == (16 * 10**9, 64 * 10**9)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    """Nothing in the unit is unknown to systemd, which only warns of that, or wrong."""
    unit = tmp_path / "jobworker.service"
    text = (PACKAGING / "jobworker.service").read_text()
    unit.write_text(text.replace("/opt/jobworker/bin/jobworker", sys.executable))  # it has to exist
    command = ["systemd-analyze", "verify", "--man=no", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
