"""Keep the diagram of docs/design.md equal to the transition table of the code.

Run as `python tools/state_diagram.py write` or `check`.
"""

from __future__ import annotations

import sys
from pathlib import Path

from jobworker.core.state import TRANSITIONS

DOCUMENT = Path(__file__).parent.parent / "docs" / "design.md"
BEGIN, END = "<!-- made by tools/state_diagram.py -->\n", "<!-- end -->"


def diagram() -> str:
    """The transition table as a Mermaid state diagram."""
    lines = ["```mermaid", "stateDiagram-v2", "    [*] --> RUNNING: started"]
    for state, changes in TRANSITIONS.items():
        lines += [f"    {state} --> {after}: {cause}" for cause, after in changes.items()]
        if not changes:
            lines.append(f"    {state} --> [*]")
    return "\n".join([*lines, "```", ""])


def main(action: str) -> int:
    """Write the diagram, or check that it is current."""
    text = DOCUMENT.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    current = before + BEGIN + diagram() + END + rest.split(END, 1)[1]
    if action == "write":
        DOCUMENT.write_text(current, encoding="utf-8")
    elif text != current:
        sys.stderr.write("docs/design.md: the state diagram is not current; run `make diagram`\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
