"""Frames on the socket pair between server and engine, as `messages.py` describes them."""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence

import msgspec

from corral.config import EngineConfig, ModelConfig
from corral.engine.messages import ToEngine, ToServer

LENGTH = struct.Struct("<I")

_encoder = msgspec.msgpack.Encoder()
to_engine = msgspec.msgpack.Decoder(list[ToEngine])
to_server = msgspec.msgpack.Decoder(list[ToServer])
first_to_engine = msgspec.msgpack.Decoder(tuple[ModelConfig, EngineConfig])
"""The first frame to the engine is no message: it says what to load."""


def frame(body: Sequence[ToEngine] | Sequence[ToServer] | tuple[ModelConfig, EngineConfig]) -> bytes:
    buffer = bytearray(LENGTH.size)
    _encoder.encode_into(body, buffer, LENGTH.size)
    LENGTH.pack_into(buffer, 0, len(buffer) - LENGTH.size)
    return bytes(buffer)


def read_frame(sock: socket.socket) -> bytes | None:
    """The body of the next frame, waiting for it; None at the end of the stream."""
    header = _read_exactly(sock, LENGTH.size)
    return header and _read_exactly(sock, LENGTH.unpack(header)[0])


def _read_exactly(sock: socket.socket, count: int) -> bytes | None:
    data = bytearray(count)
    view = memoryview(data)
    while view:
        received = sock.recv_into(view)
        if received == 0:
            return None
        view = view[received:]
    return bytes(data)
