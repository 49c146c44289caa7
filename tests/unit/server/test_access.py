"""Every RPC that is served has a row in the table of access, and every row an RPC."""

from __future__ import annotations

import re
from pathlib import Path

from google.protobuf import descriptor_pool

from jobworker.auth.policy import POLICY, Permission
from jobworker.auth.roles import Role
from jobworker.server import access
from jobworker.server.app import SERVICES

DOCUMENT = Path(__file__).parents[3] / "docs" / "api.md"


def served_rpcs() -> dict[str, bool]:
    """The full names of all RPCs of the services that are served, and whether they stream their responses."""
    services = [descriptor_pool.Default().FindServiceByName(name) for name in SERVICES]
    return {
        f"/{service.full_name}/{method.name}": method.server_streaming
        for service in services
        for method in service.methods
    }


def test_every_rpc_has_a_row() -> None:
    """A new RPC cannot be forgotten here; without a row it would be denied to everybody, and nobody would know why."""
    assert set(access.TABLE) == set(served_rpcs())


def test_what_can_stay_open_is_counted() -> None:
    """Streams, waits and stops last for as long as their callers like, so they are held against a bound."""
    streams = {rpc for rpc, streaming in served_rpcs().items() if streaming}
    held = {hold: {rpc for rpc, row in access.TABLE.items() if row.hold is hold} for hold in access.Hold}
    assert held == {
        access.Hold.WATCH: streams | {"/jobworker.v1.JobService/WaitJob"},
        access.Hold.STOP: {rpc for rpc in access.TABLE if rpc.endswith("/StopJob")},
    }


def test_every_permission_is_of_use() -> None:
    """A permission that no RPC needs would be a promise that nothing keeps."""
    assert {row.permission for row in access.TABLE.values()} == set(Permission)


def access_table() -> str:
    """The table of RPCs as docs/api.md has it."""
    lines = ["| RPC | permission | " + " | ".join(Role) + " |", "|---|---|" + "---|" * len(Role)]
    for rpc, row in access.TABLE.items():
        scopes = " | ".join(_words(role, row.permission) for role in Role)
        lines.append(f"| `{rpc}` | {row.permission} | {scopes} |")
    return "\n".join(lines) + "\n"


def _words(role: Role, permission: Permission) -> str:
    return {"ANY": "yes", "OWN": "own jobs", "NONE": "no"}[POLICY[role][permission].name]


def test_the_document_shows_the_table() -> None:
    """docs/api.md has the very table that the code gives; on a difference, paste what is shown here."""
    assert access_table() in DOCUMENT.read_text(), access_table()


def test_the_document_names_no_rpc_that_there_is_not() -> None:
    """No other RPC is mentioned in the document by its full name."""
    named = set(re.findall(r"`(/[a-zA-Z0-9_.]+/[A-Za-z]+)`", DOCUMENT.read_text()))
    assert named <= set(access.TABLE)
