"""Reads requests from the bytes of a connection. Pure. RFC 9112, sections 6 and 7."""

from __future__ import annotations

import re

from smartlink.server.net.requests import HttpError
from smartlink.server.transports.http.head import (
    MAX_HEAD_BYTES,
    Head,
    fields_of,
    has_stray_newline,
    lines_of,
    malformed,
    parse_head,
)

__all__ = ["RequestReader"]

_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,16})(?:;[\t\x20-\x7e\x80-\xff]*)?")
_NOT_IN_TRAILERS = frozenset({"content-length", "transfer-encoding"})


class RequestReader:
    """Takes bytes with `feed`, and gives whole requests with `read`. After an HttpError nothing more may be read."""

    __slots__ = ("_chunks", "_data", "_max_body_bytes", "_missing", "_parts", "_position", "_skipped", "head")

    def __init__(self, max_body_bytes: int) -> None:
        self._max_body_bytes = max_body_bytes
        self._data = b""
        self._position = 0
        """Where what has not been read begins in `_data`."""
        self._skipped = 0
        """Bytes of blank lines before the head."""
        self.head: Head | None = None
        """Of the request whose body is incomplete or refused."""
        self._parts: list[bytes] = []
        self._missing = 0
        """Bytes missing of the body, or of the chunk under way."""
        self._chunks: _Chunks | None = None

    @property
    def has_begun(self) -> bool:
        """Whether a part of the next request has arrived."""
        return self.head is not None or self._position < len(self._data)

    @property
    def rest(self) -> bytes:
        """What has arrived after the last request."""
        return self._data[self._position :]

    def feed(self, data: bytes) -> None:
        """Add what arrived."""
        self._data = data if self._position == len(self._data) else self._data[self._position :] + data
        self._position = 0
        if self._chunks is not None:
            self._chunks.raw_bytes += len(data)

    def read(self) -> tuple[Head, bytes] | None:
        """The next request's head and body; None if it is incomplete. Raises HttpError."""
        head = self.head
        if head is None:
            head = self._read_head()
            if head is None:
                return None
        if self._chunks is not None:
            body = self._read_chunks(self._chunks)
        elif self._missing:
            body = self._read_part()
        else:
            body = b""
        if body is None:
            return None
        self.head = None
        return head, body

    def _read_head(self) -> Head | None:
        data, start = self._data, self._position
        while data.startswith(b"\r\n", start):
            start += 2
            self._skipped += 2
        end = data.find(b"\r\n\r\n", start)
        size = self._skipped + (end if end >= 0 else len(data)) - start
        if size > MAX_HEAD_BYTES:
            raise HttpError(431, f"Headers larger than {MAX_HEAD_BYTES} bytes")
        if end < 0:
            self._position = start
            if has_stray_newline(data, start):
                raise malformed("a line that does not end in CR LF")
            return None
        head = parse_head(data[start:end])
        self._position = end + 4
        self._skipped = 0
        self.head = head
        if head.length is None:
            self._chunks = _Chunks(len(data) - self._position)
        elif head.length > self._max_body_bytes:
            raise self._too_large(head.length)
        else:
            self._missing = head.length
        return head

    def _read_part(self) -> bytes | None:
        """Take what there is of the body, or of a chunk; return the whole when nothing is missing any more."""
        start = self._position
        part = self._data[start : start + self._missing]
        self._position = start + len(part)
        self._missing -= len(part)
        if self._missing:
            if part:
                self._parts.append(part)
            return None
        if self._parts:
            self._parts.append(part)
            part = b"".join(self._parts)
            self._parts = []
        return part

    def _read_chunks(self, chunks: _Chunks) -> bytes | None:
        if chunks.raw_bytes > 2 * self._max_body_bytes + MAX_HEAD_BYTES:
            raise HttpError(413, "More around the chunks of the body than in them")
        while not chunks.is_last:
            if self._missing:
                if (part := self._read_part()) is None:
                    return None
                chunks.parts.append(part)
                chunks.is_open = True
            if chunks.is_open:
                end = self._data[self._position : self._position + 2]
                if not b"\r\n".startswith(end):
                    raise malformed("a chunk that does not end where it should")
                if len(end) < 2:
                    return None
                self._position += 2
                chunks.is_open = False
            if (size := self._read_size()) is None:
                return None
            chunks.size += size
            if chunks.size > self._max_body_bytes:
                raise self._too_large(chunks.size)
            self._missing = size
            chunks.is_last = not size
        if not self._read_trailers():
            return None
        self._chunks = None
        return b"".join(chunks.parts)

    def _read_size(self) -> int | None:
        data, start = self._data, self._position
        end = data.find(b"\r\n", start)
        if end < 0 and not has_stray_newline(data, start):
            return None
        found = _CHUNK.fullmatch(data, start, end) if end >= 0 else None
        if found is None:
            raise malformed("a chunk without a valid size")
        self._position = end + 2
        return int(found[1], 16)

    def _read_trailers(self) -> bool:
        """Skip the trailers; they must not change what the head said. Returns whether they are complete."""
        data, start = self._data, self._position
        if data.startswith(b"\r\n", start):
            self._position = start + 2
            return True
        end = data.find(b"\r\n\r\n", start)
        if (end if end >= 0 else len(data)) - start > MAX_HEAD_BYTES:
            raise HttpError(431, f"Trailers larger than {MAX_HEAD_BYTES} bytes")
        if end < 0:
            if has_stray_newline(data, start):
                raise malformed("a line that does not end in CR LF")
            return False
        if not _NOT_IN_TRAILERS.isdisjoint(fields_of(lines_of(data[start:end]))):
            raise malformed("a length among the trailers")
        self._position = end + 4
        return True

    def _too_large(self, size: int) -> HttpError:
        return HttpError(413, f"The body is {size} bytes or more, larger than {self._max_body_bytes}")


class _Chunks:
    """A body that comes in chunks."""

    __slots__ = ("is_last", "is_open", "parts", "raw_bytes", "size")

    def __init__(self, raw_bytes: int) -> None:
        self.parts: list[bytes] = []
        self.size = 0
        self.raw_bytes = raw_bytes
        """Bytes read since the head, with sizes and trailers."""
        self.is_open = False
        """The chunk has all its bytes, but not yet the end of its line."""
        self.is_last = False
        """The last chunk has begun: only trailers may follow."""
