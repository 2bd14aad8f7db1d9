"""The reader against two others, h11 and llhttp (httptools): what it takes, they read alike.

It may refuse more than they do. What it takes and they refuse or read differently could be smuggled.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import h11
import httptools
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from smartlink.server.net.requests import HttpError
from smartlink.server.transports.http.reader import RequestReader

Taken = list[tuple[bytes, bytes, bytes]]
"""Method, target and body of each request that is complete."""
MAX_BODY = 64


def by_reader(parts: list[bytes]) -> tuple[Taken, int]:
    """What is taken, and the status of the refusal or 0."""
    reader, taken = RequestReader(MAX_BODY), Taken()
    try:
        for part in parts:
            reader.feed(part)
            while (read := reader.read()) is not None:
                head, body = read
                query = f"?{head.query}" if head.query else ""
                taken.append((head.method.encode(), (head.path + query).encode(), body))
                if not head.keeps_alive:
                    return taken, 0
    except HttpError as error:
        return taken, error.status
    return taken, 0


def by_h11(data: bytes) -> Taken:
    peer, taken, body = h11.Connection(h11.SERVER, max_incomplete_event_size=32_768), Taken(), b""
    peer.receive_data(data)
    method = target = b""
    try:
        while True:
            got = peer.next_event()
            if isinstance(got, h11.Request):
                method, target, body = got.method, got.target, b""
            elif isinstance(got, h11.Data):
                body += got.data
            elif isinstance(got, h11.EndOfMessage):
                taken.append((method, target, body))
                peer.send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
                peer.send(h11.EndOfMessage())
                if peer.our_state is not h11.DONE:
                    return taken
                peer.start_next_cycle()
            else:
                return taken
    except h11.RemoteProtocolError:
        return taken


class _Llhttp:
    def __init__(self) -> None:
        self.taken = Taken()
        self.target = self.body = b""
        self.parser: Any = httptools.HttpRequestParser(self)

    def on_message_begin(self) -> None:
        self.target = self.body = b""

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.taken.append((self.parser.get_method(), self.target, self.body))


def by_llhttp(data: bytes) -> Taken:
    reading = _Llhttp()
    try:
        reading.parser.feed_data(data)
    except httptools.HttpParserUpgrade:
        return reading.taken
    except httptools.HttpParserError:
        return reading.taken
    return reading.taken


LINES = st.sampled_from([
    b"Content-Length: 3", b"Content-Length: 03", b"Content-Length: 0", b"Content-Length: 3, 3", b"Content-Length: +3",
    b"content-length:3 ", b"Content-Length : 3", b"Content-Length:\t3", b"Content-Length: 0x3", b"Content-Length: 3\xa0",
    b"Transfer-Encoding: chunked", b"transfer-encoding:CHUNKED ", b"Transfer-Encoding: chunked, chunked",
    b"Transfer-Encoding: identity", b"Transfer-Encoding:\x0bchunked", b"Transfer-Encoding : chunked", b" X: folded",
    b"\tX: folded", b"X: a\rb", b"X: a\nb", b"X: a\0b", b"X: \xe9", b"X\xa0: y", b"X:", b":", b"X", b"", b"Host: x", b"Host:",
    b"Host: x/y", b"Connection: close", b"Connection: keep-alive, Close", b"Connection: closed", b"Expect: 100-continue",
    b"Trailer: X", b"X: \x7f", b"X: a\tb", b"X_y|~: 1", b"X\t: 1", b"X(: 1",
])  # fmt: skip
BODIES = st.sampled_from([
    b"", b"abc", b"ab", b"abcd", b"3\r\nabc\r\n0\r\n\r\n", b"3;a=b\r\nabc\r\n0;c\r\n\r\n", b"003\r\nabc\r\n00\r\n\r\n",
    b"3 \r\nabc\r\n0\r\n\r\n", b" 3\r\nabc\r\n0\r\n\r\n", b"3\nabc\n0\n\n", b"3\r\nabcd\r\n0\r\n\r\n", b"3\r\nab\r\n0\r\n\r\n",
    b"0\r\nX: y\r\n\r\n", b"0\r\nContent-Length: 3\r\n\r\n", b"0\r\n X\r\n\r\n", b"0\r\n\n", b"0x3\r\nabc\r\n0\r\n\r\n", b"3\r\nabc0\r\n\r\n",
    b"A\r\n0123456789\r\n0\r\n\r\n", b"-3\r\nabc\r\n0\r\n\r\n", b"10000000000000003\r\nabc\r\n0\r\n\r\n",
    b"3;a=\r\x00\r\nabc\r\n0\r\n\r\n", b"3\r\nabc\r\n0\r\nX : y\r\n\r\n",
])  # fmt: skip
FIRST = st.sampled_from([
    b"GET /a HTTP/1.1", b"POST /b?c=d HTTP/1.1", b"POST /%2e%00 HTTP/1.1", b"HEAD /a HTTP/1.1", b"POST /e HTTP/1.0",
    b"POST  /e HTTP/1.1", b"POST /e HTTP/1.1 ", b"POST /e\tf HTTP/1.1", b"POST /e f HTTP/1.1",
    b"post /e HTTP/1.1", b"POST /e HTTP/1.2", b"POST /e", b"POST /\xc5\xbe HTTP/1.1", b"\nPOST /e HTTP/1.1",
    b"\rPOST /e HTTP/1.1", b"POST /e#f HTTP/1.1", b"POST /e\x0b HTTP/1.1", b"POST\t/e HTTP/1.1", b"OPTIONS * HTTP/1.1", b"POST e HTTP/1.1",
])  # fmt: skip
ENDS = st.sampled_from([b"\r\n"] * 150 + [b"\n", b"\r", b"\r\r\n", b"\n\r\n"])
PLAIN = st.sampled_from([b"POST /b?c=d HTTP/1.1", b"GET /a HTTP/1.1", b"POST /%2e%00 HTTP/1.1"])
HARMLESS = st.sampled_from([b"X: \xe9", b"X:", b"X: a\tb", b"X_y|~: 1", b"Trailer: X", b"Connection: closed"])
SIZED = st.just((b"Content-Length: 3", b"abc"))
CHUNKED = st.tuples(st.just(b"Transfer-Encoding: chunked"), BODIES.filter(lambda body: b"\n" in body))


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """Mostly a valid one, with a fault or two."""
    framing, body = draw(SIZED | SIZED | CHUNKED | CHUNKED | st.just((b"X: y", b"")) | st.tuples(LINES, BODIES))
    lines = [b"Host: x", framing, *draw(st.lists(HARMLESS | HARMLESS | HARMLESS | LINES, max_size=2))]
    lines = [draw(PLAIN | PLAIN | PLAIN | FIRST), *draw(st.permutations(lines))]
    return b"".join(line + draw(ENDS) for line in [*lines, b""]) + body


@settings(max_examples=400, database=None, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.lists(requests(), min_size=1, max_size=3).map(b"".join), cuts=st.lists(st.integers(0, 200), max_size=3))
def test_what_is_taken_is_what_others_read(data: bytes, cuts: list[int]) -> None:
    taken, status = by_reader([data])
    event(f"{len(taken)} taken, then {status}")
    places = [0, *sorted(cuts), len(data)]
    parts = [data[start:end] for start, end in pairwise(places) if start < end]

    split_taken, split_status = by_reader(parts)
    assert split_taken == taken
    assert bool(split_status) == bool(status)
    for read in (by_h11, by_llhttp):
        # They may read on where it refuses, but never another request in the bytes of one that it took.
        assert read(data)[: len(taken)] == taken, read.__name__
