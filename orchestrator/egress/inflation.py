"""Answers, decompressed piece by piece: a few KiB can unpack to GiB."""

import zlib
from collections.abc import AsyncIterator, Iterator
from typing import Final

import httpcore

from orchestrator.egress.errors import TooLargeError, UnreachableError
from orchestrator.egress.messages import headers_of
from orchestrator.step_errors import PermanentError

_PIECE_BYTES: Final = 64 * 1024


async def decoded(response: httpcore.Response, max_bytes: int) -> AsyncIterator[bytes]:
    """Give out the decompressed body piece by piece, up to the cap."""
    inflate = _Inflate(headers_of(response).get("content-encoding", ""))
    left = max_bytes
    received = 0
    async for chunk in response.aiter_stream():
        received += len(chunk)
        for piece in inflate.feed(chunk):
            left -= len(piece)
            if left < 0 or received > 2 * max_bytes:  # twice: compressed data may be a little longer than plain data
                raise TooLargeError(f"response body is larger than {max_bytes} bytes")
            yield piece
    inflate.finish()


class _Inflate:
    """Undoes a `Content-Encoding` in pieces of at most 64 KiB, since a few KiB can unpack to GiB."""

    def __init__(self, encoding: str) -> None:
        self._encoding = encoding.strip().lower()
        if self._encoding not in {"", "identity", "gzip", "x-gzip", "deflate"}:
            raise PermanentError(f"unsupported content-encoding {self._encoding!r}")
        self._is_plain = self._encoding in {"", "identity"}
        self._zlib = self._new()
        self._has_begun = False

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Give out what the chunk unpacks to."""
        if self._is_plain:
            yield chunk
            return
        while chunk:
            piece = self._unpack(chunk)
            if piece:
                yield piece
            chunk = self._zlib.unconsumed_tail
            if self._zlib.eof:
                chunk = self._next_member()

    def finish(self) -> None:
        """Raise if the body ended in the middle of its compressed form."""
        if not self._is_plain and self._has_begun and not self._zlib.eof:
            raise UnreachableError("the response body ends too early")

    def _unpack(self, chunk: bytes) -> bytes:
        try:
            return self._zlib.decompress(chunk, _PIECE_BYTES)
        except zlib.error as exc:
            if self._encoding == "deflate" and not self._has_begun:
                self._zlib = zlib.decompressobj(-zlib.MAX_WBITS)  # many servers send deflate without its zlib wrapper
                self._has_begun = True
                return self._unpack(chunk)
            raise UnreachableError(f"the response body is no valid {self._encoding}") from exc
        finally:
            self._has_begun = True

    def _next_member(self) -> bytes:
        """Return what follows the end of a compressed stream if it is a further gzip member; ignore anything else."""
        rest = self._zlib.unused_data
        if self._encoding == "deflate" or not rest.startswith(b"\x1f\x8b"):
            return b""
        self._zlib = self._new()
        return rest

    def _new(self) -> "zlib._Decompress":
        return zlib.decompressobj(zlib.MAX_WBITS | (0 if self._encoding == "deflate" else 16))
