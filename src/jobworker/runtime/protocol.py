"""What the daemon, the spawner and the supervisors say to each other, without the saying.

Each message is one packet of a SOCK_SEQPACKET socket and holds a JSON object.

daemon → spawner, with descriptors:
    {"op": "supervise"}  + connection                   supervise jobs for the daemon at the other end of the connection
    {"op": "bury"}       + directory, lock, listener    end what a dead supervisor has left behind

daemon → supervisor that is free, on that connection:
    {"op": "stand_by", "id": i, "cgroup": p}   make a directory for the job, and stand by for it; it will have this
                                               cgroup (a path that is not there yet, or null)

daemon → supervisor that stands by:
    {"op": "start", "job": {...}}  + line      run the job, whose record is the line, a file; it is answered by an event
    What a supervisor has to know of its job: "id", "cgroup" (a path that is not there yet, or null), "child_policy",
    "time_limit" (seconds or null), "oom_group" (whether running out of memory ends all of it), "sync" (whether records
    have to survive a power cut), and "output": its "mode", "limit" (bytes or null) and "policy" as in core.output,
    "reserve" (bytes of the file system that it leaves free), "splice" (whether those who watch the output see what was
    spliced into it) and "holes" (whether a file can give back its beginning). The rest is in the record of the job.

daemon → supervisor, each answered by {"reply": n, "ok": bool}; not ok means that the job has ended, unless "refused"
says what the kernel did not take ({"errno": e, "file": f}):
    {"op": "stop", "n": n, "stop": {...}}               begin a stop, or hurry one that is under way
    {"op": "signal", "n": n, "signal": number}          signal the process group of the first process
    {"op": "pause", "n": n}, {"op": "resume", "n": n}   have the job stand still, or go on
    {"op": "limits", "n": n, "writes": [[file, value], ...], "limits": {...}}   write the files of the cgroup, all or
                                                        none, and keep what the limits are

supervisor → every daemon that is connected; the present state right after the connection:
    {"event": "started", "time": t}                     the program has been executed
    {"event": "failed", "errno": e, "stage": s, "subject": s}   it could not be; nothing is left of it
    {"event": "stopping", "stop": {...}}                a stop has begun
    {"event": "paused", "paused": bool}                 the job stands still, or goes on
    {"event": "unkillable", "pids": [...]}              processes that outlive being killed, deep in the kernel
    {"event": "ended", "end": {...}, "stop": {...}}     the end is on record, as it is told here
    {"event": "free"}                                   nothing is left of the job; on the first connection alone
"""

from __future__ import annotations

import errno
import json
import select
import socket
import struct
from typing import Any, cast

Message = dict[str, Any]

FREE: Message = {"event": "free"}

MAX_MESSAGE_BYTES = 16 * 1024  # far more than the longest message; the kernel cuts what is longer
_MAX_DESCRIPTORS = 3  # that a message carries
_CUT_OFF = int(socket.MSG_CTRUNC)  # an enumeration's operators are Python, which writes to memory
_DESCRIPTOR = struct.Struct("i")
_ANCILLARY_BYTES = socket.CMSG_SPACE(_MAX_DESCRIPTORS * _DESCRIPTOR.size)

_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid


# Made once, without what json.dumps and json.loads look for, and used for records, too: a supervisor writes to less
# memory so.
_encode = json.JSONEncoder(separators=(",", ":")).encode
_decode = json.JSONDecoder().raw_decode


def encode(message: Message) -> bytes:
    """A message as a packet."""
    return _encode(message).encode()


def decode(packet: bytes) -> Message:
    """The message of a packet. Raises `ValueError`."""
    text = packet.decode()
    message, end = _decode(text)
    if end != len(text) or not isinstance(message, dict):
        raise ValueError("a message is an object")
    return cast("Message", message)


def receive(connection: socket.socket) -> tuple[Message, list[int]] | None:
    """The next message, and the descriptors that it carries; `None` if the other end has gone.

    Raises `ValueError` for what is no message, and `OSError`, also if there is no room for its descriptors.
    """
    try:
        packet, ancillary, flags, _ = connection.recvmsg(MAX_MESSAGE_BYTES, _ANCILLARY_BYTES, socket.MSG_CMSG_CLOEXEC)
    except ConnectionError:
        return None
    if flags & _CUT_OFF:
        raise OSError(errno.EMFILE, "there is no room for the descriptors of a message")
    files = [file for _, _, data in ancillary for (file,) in _DESCRIPTOR.iter_unpack(data)]
    return (decode(packet), files) if packet else None


def tell(connection: socket.socket, message: Message) -> bool:
    """Send a message to a daemon; whether it is there still and takes it."""
    try:
        connection.send(encode(message), socket.MSG_NOSIGNAL)
    except OSError:
        return False
    return True


def has_hung_up(connection: socket.socket) -> bool:
    """Whether the other end is closed, whatever is to be read from it still."""
    poller = select.poll()
    poller.register(connection, 0)
    return bool(poller.poll(0))


def peer_uid(connection: socket.socket) -> int:
    """The user id of the process at the other end of a Unix socket when it connected."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return _CREDENTIALS.unpack(raw)[1]
