"""Digests of files and values, and seeds derived from values."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor


def derive_seed(*parts: int | str) -> int:
    """A seed 0..2^63-1 that depends on every part, e.g. on (seed, epoch, picture)."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


DIGEST_BYTES = 16


def digest_of(*parts: object) -> str:
    """32 hexadecimal digits that depend on the text of every part."""
    return hashlib.blake2b("\0".join(map(str, parts)).encode("utf-8", "surrogatepass"), digest_size=DIGEST_BYTES).hexdigest()


def digest_files(groups: Sequence[Sequence[Path]]) -> Tensor:
    """(N,) int64, a digest of the bytes of each of N groups of files. A path that is not a file counts as an empty file."""

    def digest(paths: Sequence[Path]) -> int:
        content = hashlib.blake2b(digest_size=8)
        for path in paths:
            if path.is_file():
                with path.open("rb") as file:
                    content.update(hashlib.file_digest(file, "blake2b").digest())
        return int.from_bytes(content.digest(), "big", signed=True)

    with ThreadPoolExecutor() as pool:  # hashing releases the interpreter's lock
        return torch.tensor(list(pool.map(digest, groups)), dtype=torch.int64)


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's bytes as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
