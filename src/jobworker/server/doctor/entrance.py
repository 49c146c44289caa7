"""Where calls come in and where they are noted: the port and the audit log."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Literal

from jobworker.core.address import Address
from jobworker.linux import kernel_file, process
from jobworker.server.audit import AuditLog
from jobworker.server.doctor.finding import Finding, error, ok
from jobworker.server.errors import StartError
from jobworker.server.port import check_free

_TABLES = ("/proc/net/tcp", "/proc/net/tcp6")
_ADDRESS, _STATE, _INODE = 1, 3, 9  # columns in them, see proc(5)
_LISTENING = "0A"


def examine_port(listen: Address) -> Iterator[Finding]:
    """Whether the port can be had, and who has it otherwise."""
    try:
        check_free(listen.host, listen.port)
    except StartError as problem:
        holders = _holders(listen.port)
        held = f" (port {listen.port} is held by {', '.join(holders)})" if holders else ""
        remedy = "choose another address (listen)"
        yield error("port", f"{problem}{held}", f"end that process, or {remedy}" if holders else remedy)
    else:
        yield ok("port", f"{listen} is free" if listen.port else f"any free port of {listen.host}")


def examine_audit_log(target: Path | Literal["stderr", "off"]) -> Iterator[Finding]:
    """Whether the audit log can be written; a file that was made for that goes again."""
    if not isinstance(target, Path):
        yield ok("audit_log", "off" if target == "off" else "to standard error")
        return
    new = not os.path.lexists(target)
    try:
        AuditLog.to(target)
    except OSError as problem:
        remedy = "make its folder, and the file writable for the server's user, or choose another (audit_log)"
        yield error("audit_log", f"{target} cannot be written: {problem.strerror}", remedy)
        return
    if new:
        target.unlink()
    yield ok("audit_log", f"{target} can be written")


def _holders(port: int) -> list[str]:
    """Who listens on a port, as far as we may look."""
    sockets = {f"socket:[{inode}]" for inode in _listening(port)}
    return [f"process {pid} ({_program(pid)})" for pid in process.pids() if sockets & _descriptors(pid)]


def _listening(port: int) -> set[str]:
    found: set[str] = set()
    for table in _TABLES:
        with suppress(OSError):  # no IPv6
            for line in kernel_file.read(table).decode().splitlines()[1:]:
                columns = line.split()
                if columns[_STATE] == _LISTENING and int(columns[_ADDRESS].rpartition(":")[2], 16) == port:
                    found.add(columns[_INODE])
    return found


def _descriptors(pid: int) -> set[str]:
    found: set[str] = set()
    with suppress(OSError):  # it is gone, or not ours to look at
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                found.add(str(entry.readlink()))
    return found


def _program(pid: int) -> str:
    try:
        return re.sub(r"\s+", " ", kernel_file.read(f"/proc/{pid}/comm").decode(errors="replace").strip())
    except OSError:
        return "gone"
