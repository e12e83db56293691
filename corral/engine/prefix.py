"""Names for the beginnings of sequences: a digest for each full block, of all tokens up to its end.

The digest of a block is a hash of the digest before it and of its own tokens, so equal digests mean equal
prefixes. The hash is keyed with random bytes that never leave the process: a client can't look for two
prompts with the same digest, and so can't be given what was computed for another prompt.
"""

from __future__ import annotations

import secrets
from array import array
from collections.abc import Sequence
from hashlib import blake2b

from corral.program.batch import BLOCK_TOKENS

DIGEST_BYTES = 16


class PrefixHash:
    """Makes digests. `key` is for tests that want the same ones again."""

    def __init__(self, key: bytes | None = None) -> None:
        self._key = secrets.token_bytes(32) if key is None else key

    def extend(self, digests: list[bytes], tokens: Sequence[int]) -> None:
        """Append the digests of the full blocks of `tokens` that have none yet."""
        for i in range(len(digests), len(tokens) // BLOCK_TOKENS):
            block = array("i", tokens[i * BLOCK_TOKENS : (i + 1) * BLOCK_TOKENS])
            parent = digests[-1] if digests else b""
            digests.append(
                blake2b(parent + block.tobytes(), digest_size=DIGEST_BYTES, key=self._key).digest()
            )
