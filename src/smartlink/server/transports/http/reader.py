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
_BEGINNING = re.compile(rb"[!-~]|\r?\Z")
"""Of a head. A TLS client at a port without TLS is told at once: its first message has no end of a head to wait for."""
_NOT_IN_TRAILERS = frozenset({"content-length", "transfer-encoding"})


class RequestReader:
    """Takes bytes with `feed`, and gives whole requests with `read`. After an HttpError nothing more may be read."""

    __slots__ = (
        "_chunks",
        "_data",
        "_looked_to",
        "_max_body_bytes",
        "_missing",
        "_parts",
        "_position",
        "_skipped",
        "head",
    )

    def __init__(self, max_body_bytes: int) -> None:
        self._max_body_bytes = max_body_bytes
        self._data = b""
        self._position = 0
        """Where what has not been read begins in `_data`."""
        self._looked_to = 0
        """Up to where `_data` has been looked through in vain for the end of what is read."""
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
        self._keep_rest()
        self._data = self._data + data if self._data else data

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

    def _keep_rest(self) -> None:
        """Keep no bytes that have been read: most connections are idle, for more than a minute."""
        if self._position:
            self._data = self.rest
            self._looked_to = max(0, self._looked_to - self._position)
            self._position = 0

    def _find(self, mark: bytes) -> int:
        """Where the first `mark` begins; -1 until it has arrived. Raises HttpError for a line feed by itself before it.

        Looks at each byte once, however many segments bring them.
        """
        data = self._data
        end = data.find(mark, max(self._position, self._looked_to - len(mark) + 1))
        if end >= 0:
            self._looked_to = 0
            return end
        begin = max(self._position, self._looked_to)
        if data[begin - 1 : begin] == b"\r" and begin > self._position:
            begin -= 1
        self._looked_to = len(data)
        if has_stray_newline(data, begin):
            raise malformed("a line that does not end in CR LF")
        return -1

    def _read_head(self) -> Head | None:
        data = self._data
        while data.startswith(b"\r\n", self._position):
            self._position += 2
            self._skipped += 2
        start, end = self._position, self._find(b"\r\n\r\n")
        # Of an incomplete head, the last three bytes may belong to the blank line behind it.
        size = self._skipped + (end if end >= 0 else len(data) - 3) - start
        if size > MAX_HEAD_BYTES:
            raise HttpError(431, f"Headers larger than {MAX_HEAD_BYTES} bytes")
        if end < 0:
            if not _BEGINNING.match(data, start):
                raise malformed("it does not begin with a method")
            self._keep_rest()
            return None
        head = parse_head(data[start:end])
        self._position = end + 4
        self._skipped = 0
        self.head = head
        if head.length is None:
            self._chunks = _Chunks()
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
            self._keep_rest()
            return None
        if self._parts:
            self._parts.append(part)
            part = b"".join(self._parts)
            self._parts = []
        return part

    def _read_chunks(self, chunks: _Chunks) -> bytes | None:
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
            if (size := self._read_size(chunks)) is None:
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

    def _read_size(self, chunks: _Chunks) -> int | None:
        data, start, end = self._data, self._position, self._find(b"\r\n")
        length = (end if end >= 0 else len(data) - 1) - start
        if length > MAX_HEAD_BYTES or chunks.around + length > 2 * self._max_body_bytes + MAX_HEAD_BYTES:
            raise HttpError(413, "More around the chunks of the body than in them")
        if end < 0:
            return None
        found = _CHUNK.fullmatch(data, start, end)
        if found is None:
            raise malformed("a chunk without a valid size")
        self._position = end + 2
        chunks.around += length + len(b"\r\n" * 2)
        return int(found[1], 16)

    def _read_trailers(self) -> bool:
        """Skip the trailers; they must not change what the head said. Returns whether they are complete."""
        data, start = self._data, self._position
        if data.startswith(b"\r\n", start):
            self._position = start + 2
            return True
        end = self._find(b"\r\n\r\n")
        if (end if end >= 0 else len(data) - 3) - start > MAX_HEAD_BYTES:
            raise HttpError(431, f"Trailers larger than {MAX_HEAD_BYTES} bytes")
        if end < 0:
            return False
        if not _NOT_IN_TRAILERS.isdisjoint(fields_of(lines_of(data[start:end]))):
            raise malformed("a length among the trailers")
        self._position = end + 4
        return True

    def _too_large(self, size: int) -> HttpError:
        return HttpError(413, f"The body is {size} bytes or more, larger than {self._max_body_bytes}")


class _Chunks:
    """A body that comes in chunks."""

    __slots__ = ("around", "is_last", "is_open", "parts", "size")

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.size = 0
        self.around = 0
        """Bytes read since the head that are not of the body: sizes, extensions, ends of lines."""
        self.is_open = False
        """The chunk has all its bytes, but not yet the end of its line."""
        self.is_last = False
        """The last chunk has begun: only trailers may follow."""
