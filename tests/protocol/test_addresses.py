"""Hosts and ports in URLs."""

from __future__ import annotations

import pytest

from smartlink.protocol.addresses import netloc


@pytest.mark.parametrize(
    ("host", "expected"),
    [("localhost", "localhost:80"), ("127.0.0.1", "127.0.0.1:80"), ("::1", "[::1]:80"), ("[::1]", "[::1]:80")],
)
def test_ipv6_addresses_are_in_brackets(host: str, expected: str) -> None:
    assert netloc(host, 80) == expected
