"""docs/api.md says of errors what the code does."""

from __future__ import annotations

from pathlib import Path

from jobworker.api.status import TABLE

DOCUMENT = Path(__file__).parents[3] / "docs" / "api.md"


def errors_table() -> str:
    """The table of errors as docs/api.md has it."""
    lines = ["| reason | gRPC code | metadata | in Python |", "|---|---|---|---|"]
    for row in TABLE:
        metadata = ", ".join(f"`{key}`" for key in row.attributes)
        lines.append(f"| `{row.reason}` | {row.code.name} | {metadata} | `{row.error.__name__}` |")
    return "\n".join(lines) + "\n"


def test_the_document_shows_the_table() -> None:
    """docs/api.md has the very table that the code gives; on a difference, paste what is shown here."""
    assert errors_table() in DOCUMENT.read_text(), errors_table()
