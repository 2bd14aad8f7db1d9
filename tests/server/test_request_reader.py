"""The reader by itself: what it reads does not depend on how the bytes were split, and it keeps none."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterable, Iterator

import pytest

from smartlink.server.net.requests import HttpError
from smartlink.server.transports.http.head import MAX_HEAD_BYTES
from smartlink.server.transports.http.reader import RequestReader

MAX_BODY = 4_096
CHUNKED = b"POST /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


def taken(parts: Iterable[bytes], max_body: int = MAX_BODY) -> list[tuple[str, str, bytes] | int]:
    """Method, path and body of each request; last the status of a refusal, if there is one."""
    reader, requests = RequestReader(max_body), list[tuple[str, str, bytes] | int]()
    try:
        for part in parts:
            reader.feed(part)
            while (read := reader.read()) is not None:
                requests.append((read[0].method, read[0].path, read[1]))
    except HttpError as error:
        requests.append(error.status)
    return requests


def bytewise(data: bytes) -> Iterator[bytes]:
    return (data[at : at + 1] for at in range(len(data)))


def head_of(size: int) -> bytes:
    """A head of `size` bytes, without its final blank line."""
    start = b"GET /h HTTP/1.1\r\nHost: x\r\nX: "
    return start + b"y" * (size - len(start))


STREAMS: dict[str, tuple[bytes, list[tuple[str, str, bytes] | int]]] = {
    "requests of every kind": (
        (
            b"\r\n\r\nGET /a?q HTTP/1.1\r\nHost: x\r\n\r\nPOST /b HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n\r\n\r\n"
            + CHUNKED + b"3;a=b\r\n\r\n0\r\n02\r\n\r\n\r\n0\r\nX: y\r\n\r\n" + CHUNKED + b"0\r\n\r\n"
            + b"HEAD /d HTTP/1.1\r\nHost:\r\n\r\n"
        ),
        [("GET", "/a", b""), ("POST", "/b", b"\r\n\r\n"), ("POST", "/c", b"\r\n0\r\n"), ("POST", "/c", b""), ("HEAD", "/d", b"")],
    ),
    "a head at the limit": (head_of(MAX_HEAD_BYTES) + b"\r\n\r\n", [("GET", "/h", b"")]),
    "a head over the limit": (head_of(MAX_HEAD_BYTES + 1) + b"\r\n\r\n", [431]),
    "trailers at the limit": (CHUNKED + b"0\r\nX: " + b"y" * (MAX_HEAD_BYTES - 3) + b"\r\n\r\n", [("POST", "/c", b"")]),
    "trailers over the limit": (CHUNKED + b"0\r\nX: " + b"y" * (MAX_HEAD_BYTES - 2) + b"\r\n\r\n", [431]),
    "an extension at the limit": (CHUNKED + b"0;" + b"y" * (MAX_HEAD_BYTES - 2) + b"\r\n\r\n", [("POST", "/c", b"")]),
    "an extension over the limit": (CHUNKED + b"0;" + b"y" * (MAX_HEAD_BYTES - 1) + b"\r\n\r\n", [413]),
    "100 headers": (b"GET /h HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 99 + b"\r\n", [("GET", "/h", b"")]),
    "101 headers": (b"GET /h HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 100 + b"\r\n", [431]),
    "a body at the limit": (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4096\r\n\r\n" + b"z" * 4_096, [("POST", "/", b"z" * 4_096)]),
    "a body over the limit": (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4097\r\n\r\n", [413]),
    "chunks at the limit": (CHUNKED + b"fff\r\n" + b"z" * 4_095 + b"\r\n1\r\nz\r\n0\r\n\r\n", [("POST", "/c", b"z" * 4_096)]),
    "chunks over the limit": (CHUNKED + b"fff\r\n" + b"z" * 4_095 + b"\r\n2\r\nzz\r\n0\r\n\r\n", [413]),
}  # fmt: skip


@pytest.mark.parametrize("name", STREAMS)
def test_splits_change_nothing(name: str) -> None:
    data, expected = STREAMS[name]

    assert taken([data]) == expected
    assert taken(bytewise(data)) == expected
    # At every point of a short stream, and around both ends of a long one.
    points = range(len(data)) if len(data) < 1_000 else (*range(100), *range(len(data) - 100, len(data)))
    for at in points:
        assert taken([data[:at], data[at:]]) == expected, at


def test_requests_behind_a_chunked_one_do_not_count_as_part_of_it() -> None:
    behind = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 2_000

    assert len(taken([CHUNKED + b"1\r\nx\r\n", b"0\r\n\r\n" + behind])) == 2_001


def test_an_endless_chunk_line_is_refused_before_it_is_long() -> None:
    assert taken([CHUNKED, b"1;" + b"x" * MAX_HEAD_BYTES], max_body=10**9) == [413]


NO_BEGINNINGS = {
    "a TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "NUL": b"\0", "a blank": b" GET", "UTF-8": b"\xc5\xbe",
    "CR and no LF": b"\rG", "blank lines before": b"\r\n\r\n\x80",
}  # fmt: skip


@pytest.mark.parametrize("name", NO_BEGINNINGS)
def test_what_cannot_become_a_request_is_refused_before_a_head_ends(name: str) -> None:
    """A TLS client at a port without TLS would otherwise wait until it times out."""
    assert taken([NO_BEGINNINGS[name]]) == taken(bytewise(NO_BEGINNINGS[name])) == [400]


@pytest.mark.parametrize("end", [b"", b"\r\n"])
def test_nothing_is_kept_of_requests_that_were_read(end: bytes) -> None:
    """Thousands of idle connections would each keep the segment that came last."""
    request = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n" + b"z" * 60_000
    readers = [RequestReader(100_000) for _ in range(100)]
    tracemalloc.start()
    try:
        for reader in readers:
            reader.feed(request[:-1] + b"z" + end)
            assert reader.read() is not None
            assert reader.read() is None
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert kept < 100 * 1_000
