"""Saving what the prefix cache has of a slot's tokens to a file, and bringing it back.

    magic, version, bytes of a block, id of the model, number of tokens     HEADER, little-endian
    token ids                                                               int32 each, whole blocks of them
    keys and values, block after block                                      as the executor keeps them
    blake2b of all that is above                                            32 bytes

A file is written beside its place and then renamed, so there is the whole of it or what was there before. One
that is torn, or of another model, is refused before anything of it is used. The work is done in small pieces
between the steps: others wait for `PIECE_BYTES` at a time.
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Generator, Iterator
from hashlib import blake2b
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np

from corral.engine.messages import SlotAction, SlotResult
from corral.engine.scheduler import Scheduler
from corral.errors import NotFound, RequestError, Unavailable
from corral.gguf.reader import GGUFFile
from corral.program.batch import BLOCK_TOKENS

HEADER = struct.Struct("<8sIQ32sQ")
MAGIC = b"corralkv"
VERSION = 1
HASH_BYTES = 32
PIECE_BYTES = 4 << 20
SAMPLE_BYTES = 256
LONG_ARRAY = 1000
MOST_NAME_BYTES = 200

Job = Generator[None, None, SlotResult]
"""Yields between two pieces of work. Raises CorralError, OSError."""


class BlockStore(Protocol):
    """An executor whose KV blocks can be read and written."""

    def read_block(self, block: int) -> bytes: ...

    def write_block(self, block: int, data: bytes) -> None:
        """`data`: as read_block of the same model gives it."""
        ...


def model_id(file: GGUFFile, *more: object) -> bytes:
    """Tells apart what the keys and values of tokens depend on: the model, and `more`.

    Of each tensor the beginning is looked at, of the metadata all but the vocabulary.
    """
    hash = blake2b(repr(more).encode(), digest_size=HASH_BYTES)
    for key, value in sorted(file.metadata.items()):
        if not isinstance(value, (list, np.ndarray)) or len(value) < LONG_ARRAY:
            hash.update(f"{key}={value!r}\n".encode("utf-8", "replace"))
    for name, tensor in sorted(file.tensors.items()):
        hash.update(f"{name} {tensor.type} {tensor.shape}\n".encode())
        hash.update(file.data(name)[:SAMPLE_BYTES].tobytes())
    return hash.digest()


class SlotFiles:
    """The files of one folder, for one model."""

    def __init__(self, folder: str, model: bytes, store: BlockStore) -> None:
        self._folder, self._model, self._store = Path(folder), model, store

    def start(self, action: SlotAction, scheduler: Scheduler) -> Job:
        slots = scheduler.slots
        if not 0 <= action.id_slot < slots.count:
            raise NotFound(f"there is no slot {action.id_slot}, expected 0 to {slots.count - 1}")
        if action.action == "save":
            return self._save(action, scheduler)
        if slots.is_taken(action.id_slot):
            raise Unavailable(f"slot {action.id_slot} is processing a request; try again later")
        return (self._restore if action.action == "restore" else self._erase)(action, scheduler)

    def _path(self, action: SlotAction) -> Path:
        name = action.filename
        plain = name.isprintable() and not name.startswith(".") and not set(name) & {"/", "\\"}
        if not name or not plain or len(name.encode()) > MOST_NAME_BYTES:
            raise RequestError(
                f"filename is {name[:80]!r}, expected the name of a file, without a path or a dot before it"
            )
        return self._folder / name

    def _save(self, action: SlotAction, scheduler: Scheduler) -> Job:
        path = self._path(action)
        digests, tokens = _digests(scheduler, scheduler.slots.content(action.id_slot))
        temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
        try:
            with temporary.open("wb") as out:
                count = yield from self._write(out, digests, tokens, scheduler)
                size = out.tell()
            os.replace(temporary, path)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink()
        return SlotResult(id=action.id, n_tokens=count * BLOCK_TOKENS, n_bytes=size)

    def _write(
        self, out: BinaryIO, digests: list[bytes], tokens: list[int], scheduler: Scheduler
    ) -> Generator[None, None, int]:
        """The number of blocks written. What is evicted meanwhile ends the prefix there."""
        count = len(scheduler.pool.find_prefix(digests))
        per_block = len(self._store.read_block(0))
        head = HEADER.pack(MAGIC, VERSION, per_block, self._model, count * BLOCK_TOKENS)
        head += np.array(tokens[: count * BLOCK_TOKENS], "<i4").tobytes()
        out.write(head)
        hash = blake2b(head, digest_size=HASH_BYTES)
        written = 0
        for i, digest in enumerate(digests[:count]):
            block = scheduler.pool.find(digest)
            if block is None:  # a step in between has reused it: begin again with what is left
                out.seek(0)
                out.truncate()
                return (yield from self._write(out, digests[:i], tokens, scheduler))
            data = self._store.read_block(block)
            hash.update(data)
            out.write(data)
            written += len(data)
            if written >= PIECE_BYTES:
                written = 0
                yield
        out.write(hash.digest())
        return count

    def _restore(self, action: SlotAction, scheduler: Scheduler) -> Job:
        path = self._path(action)
        try:
            source = path.open("rb")
        except FileNotFoundError:
            raise RequestError(f"there is no file {path.name!r} in the folder of --slot-save-path") from None
        with source:
            tokens, start, per_block = yield from self._verify(source, path.name)
            digests, _ = _digests(scheduler, tokens)
            restored = 0
            # the last block first: of what is free longest, the end of the prefix is to go first
            for i in reversed(range(len(digests))):
                # if all that is free are blocks of this file, there is no place for its beginning: keep that
                if i % 8 == 0:
                    yield
                if scheduler.pool.find(digests[i]) is not None:
                    continue
                blocks = scheduler.pool.allocate(1)
                if blocks is None:
                    break
                source.seek(start + i * per_block)
                data = source.read(per_block)
                if len(data) == per_block:
                    self._store.write_block(blocks[0], data)
                    scheduler.pool.publish(blocks[0], digests[i])
                scheduler.pool.free(blocks)
            restored = len(scheduler.pool.find_prefix(digests))
        if not scheduler.slots.is_taken(action.id_slot):
            scheduler.slots.set_content(action.id_slot, tokens[: restored * BLOCK_TOKENS])
        return SlotResult(id=action.id, n_tokens=restored * BLOCK_TOKENS, n_bytes=path.stat().st_size)

    def _verify(self, source: BinaryIO, name: str) -> Generator[None, None, tuple[list[int], int, int]]:
        """The token ids, where the blocks begin, and the size of a block, once the whole file is known to be
        right."""
        size = os.fstat(source.fileno()).st_size
        head = source.read(HEADER.size)
        if len(head) < HEADER.size or not head.startswith(MAGIC):
            raise RequestError(f"{name} is no saved slot")
        _, version, per_block, model, count = HEADER.unpack(head)
        if version != VERSION:
            raise RequestError(f"{name} has version {version}, expected {VERSION}")
        if model != self._model or per_block != len(self._store.read_block(0)):
            raise RequestError(f"{name} was saved with another model or another type of KV cache")
        blocks = count // BLOCK_TOKENS
        expected = HEADER.size + 4 * count + blocks * per_block + HASH_BYTES
        if count % BLOCK_TOKENS or size != expected:
            raise RequestError(f"{name} is torn: it has {size} bytes, expected {expected}")
        ids = source.read(4 * count)
        hash = blake2b(head + ids, digest_size=HASH_BYTES)
        for piece in _pieces(source, blocks * per_block):
            hash.update(piece)
            yield
        if source.read(HASH_BYTES) != hash.digest():
            raise RequestError(f"{name} is torn: its checksum is wrong")
        return np.frombuffer(ids, "<i4").tolist(), HEADER.size + 4 * count, per_block

    def _erase(self, action: SlotAction, scheduler: Scheduler) -> Job:
        content = scheduler.slots.content(action.id_slot)
        digests, _ = _digests(scheduler, content)
        for digest in reversed(digests):
            scheduler.pool.forget(digest)
        scheduler.slots.set_content(action.id_slot, [])
        return SlotResult(id=action.id, n_tokens=len(content))
        yield  # a job, like the others


def _digests(scheduler: Scheduler, tokens: list[int]) -> tuple[list[bytes], list[int]]:
    digests: list[bytes] = []
    scheduler.hash.extend(digests, tokens)
    return digests, tokens


def _pieces(source: BinaryIO, size: int) -> Iterator[bytes]:
    while size > 0:
        piece = source.read(min(size, PIECE_BYTES))
        if not piece:
            return
        size -= len(piece)
        yield piece
