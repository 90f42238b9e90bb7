"""Hashes of classifiers and arrays, and names that are safe as file names."""

import hashlib
import os
from typing import Any

import numpy as np

from wasser_tf import pretrained
from wasser_tf.data.streaming import in_chunks
from wasser_tf.models.applications import is_application, parse_application, weights_file


def fingerprint(path: str | os.PathLike[str]) -> str:
    """Returns a hash of a classifier's files: two equal hashes belong to the same classifier.

    Args:
      path: A file, a folder (all its files are hashed, with their relative paths), "pretrained:NAME" or
        "keras:NAME:weights=FILE".

    Returns:
      The SHA-256 digest, 64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    if is_application(path):
        digest.update(parse_application(str(path))[0].encode())
        path = weights_file(str(path))
    root = pretrained.resolve(path)
    for file in sorted(file for file in root.rglob("*") if file.is_file()) if root.is_dir() else [root]:
        digest.update(str(file.relative_to(root)).encode())
        with open(file, "rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def array_digest(*arrays: Any) -> str:
    """Returns the SHA-256 digest of the dtypes, shapes and contents of arrays, 64 hexadecimal digits.

    Images that are streamed have the digest of the array that they would be in memory.
    """
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype} {array.shape}".encode())
        for _, part in in_chunks(array):
            digest.update(np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()


def safe_name(name: str) -> str:
    """Returns a name as a file name: unusual characters become "_", and at most 100 characters are kept.

    >>> safe_name("a/b:c=1")
    'a_b_c=1'
    """
    return "".join(letter if letter.isalnum() or letter in "._-=," else "_" for letter in name)[:100]
