"""Output, and what is wanted of it, as messages of `jobworker.v1` and back; see `convert`."""

from __future__ import annotations

from jobworker.api.convert import time_from, time_message
from jobworker.api.v1 import jobs_pb2 as pb
from jobworker.core.errors import InvalidArgumentError
from jobworker.core.output import Chunk, Gap, GapReason, Selection, Stream

_WIRE_STREAMS = {stream: pb.StreamOutputResponse.Stream.Value(stream.value) for stream in Stream}
_STREAMS = {value: stream for stream, value in _WIRE_STREAMS.items()}
_WIRE_REASONS = {reason: pb.OutputGap.Reason.Value(reason.value) for reason in GapReason}
_REASONS = {value: reason for reason, value in _WIRE_REASONS.items()}
_DATA_TAG = bytes([pb.StreamOutputResponse.DATA_FIELD_NUMBER << 3 | 2])  # 2: a length and so many bytes follow


def selection_message(job_id: str, selection: Selection, *, follow: bool) -> pb.StreamOutputRequest:
    """A request for a part of a job's output."""
    return pb.StreamOutputRequest(
        job_id=job_id,
        offset=selection.offset,
        follow=follow,
        streams=[_WIRE_STREAMS[stream] for stream in sorted(selection.streams)],
        tail_lines=selection.tail,
        since=None if selection.since is None else time_message(selection.since),
        until=None if selection.until is None else time_message(selection.until),
        times=selection.times,
    )


def selection_from(message: pb.StreamOutputRequest) -> Selection:
    """The part of a job's output that a request is for."""
    return Selection(
        offset=message.offset,
        tail=message.tail_lines if message.HasField("tail_lines") else None,
        streams=frozenset(_stream_from(value, f"streams[{index}]") for index, value in enumerate(message.streams)),
        since=time_from(message.since, "since") if message.HasField("since") else None,
        until=time_from(message.until, "until") if message.HasField("until") else None,
        times=message.times,
    )


def serialized_piece(piece: Chunk | Gap) -> bytes:
    """A piece of output as a serialised `StreamOutputResponse`."""
    if isinstance(piece, Gap):
        gap = pb.OutputGap(length=piece.length, reason=_WIRE_REASONS[piece.reason])
        return pb.StreamOutputResponse(offset=piece.offset, gap=gap).SerializeToString()
    time = None if piece.time is None else time_message(piece.time)
    rest = pb.StreamOutputResponse(offset=piece.offset, stream=_WIRE_STREAMS[piece.stream], time=time)
    # By hand, since a message would copy the data when it is made and twice when it is serialised.
    return b"".join((rest.SerializeToString(), _DATA_TAG, _varint(len(piece.data)), piece.data))


def piece_from(message: pb.StreamOutputResponse, offset: int) -> Chunk | Gap | None:
    """What a message has from an offset on; `None` if that is nothing. It must begin there or before."""
    if message.HasField("gap"):
        length = message.offset + message.gap.length - offset
        reason = _REASONS.get(message.gap.reason)
        if reason is None:
            raise InvalidArgumentError("gap.reason", f"has the value {message.gap.reason}, which is not known here")
        return Gap(offset=offset, length=length, reason=reason) if length > 0 else None
    data = message.data[offset - message.offset :]
    if not data:
        return None
    return Chunk(
        offset=offset,
        data=data,
        stream=_STREAMS.get(message.stream, Stream.COMBINED),
        time=time_from(message.time, "time") if message.HasField("time") else None,
    )


def _stream_from(value: pb.StreamOutputResponse.Stream.ValueType, field: str) -> Stream:
    if value not in _STREAMS:
        raise InvalidArgumentError(field, f"has the value {value}, which this version of jobworker does not know")
    return _STREAMS[value]


def _varint(number: int) -> bytes:
    """A number as Protocol Buffers write it: seven bits a byte, the lowest first, each but the last one with a 1."""
    more, low = divmod(number, 0x80)
    return bytes([low | 0x80]) + _varint(more) if more else bytes([low])
