"""Signatures: valid ones verify, nothing else does, and nothing malformed is ever signed."""

from __future__ import annotations

import hashlib
import hmac

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from smartlink.protocol import signing

KEY, SECRET = "278d425bdf160c739803", "7ad3773142a6692b25b8"
SOCKET_IDS = st.from_regex(r"\A[0-9]{1,10}\.[0-9]{1,10}\Z")
CHANNELS = st.from_regex(r"\A(private-|presence-)[-a-zA-Z0-9_=@,.;]{1,40}\Z")
TEXTS = st.text(st.characters(codec="utf-8"), max_size=60)
MALFORMED_IDS = [
    "", "1", "1.", ".1", "1.1\n", "1.1 ", " 1.1", "1.1:private-x", "1.1::user::1", "١.١", "１.1", "-1.1", "1.1.1",
    "POST\n/apps/1/events\nauth_key=1", "1e3.1", "1.1\0", "1" * 1_000_000 + ".1",
]  # fmt: skip
MALFORMED_CHANNELS = ["", "private-a\n", "private-a b", "a" * 201, "private-ž", "a:b", "private-a\0", "a/b", "#server"]


def hexadecimal(message: str, secret: str = SECRET) -> str:
    return hmac.new(secret.encode(), message.encode(), hashlib.sha256).hexdigest()


def test_the_documented_examples_are_reproduced() -> None:
    private = signing.sign_channel(KEY, SECRET, "1234.1234", "private-foobar")
    data = '{"user_id":10,"user_info":{"name":"Mr. Channels"}}'
    presence = signing.sign_channel(KEY, SECRET, "1234.1234", "presence-foobar", data)
    who = '1234.1234::user::{"id":"12345"}'
    user = signing.sign_user(KEY, SECRET, "1234.1234", '{"id":"12345"}')

    assert private == f"{KEY}:58df8b0c36d6982b82c3ecf6b4662e34fe8c25bba48f5369f135bf843651c3a4"
    assert presence == f"{KEY}:{hexadecimal('1234.1234:presence-foobar:' + data)}"
    assert user == f"{KEY}:{hexadecimal(who)}"


def test_the_documented_request_signature_is_reproduced() -> None:
    params = {
        "auth_key": KEY,
        "auth_timestamp": "1353088179",
        "auth_version": "1.0",
        "body_md5": "ec365a775a4cd0599faeb73354201b6f",
    }

    signature = signing.sign_request(SECRET, "POST", "/apps/3/events", params.items())

    assert signature == "da454824c97ba181a32ccc17a72625ba02771f50b50e1e7430e47a1f3f457e6c"


@given(SOCKET_IDS, CHANNELS, st.none() | TEXTS)
def test_a_signature_verifies(socket_id: str, channel: str, data: str | None) -> None:
    auth = signing.sign_channel(KEY, SECRET, socket_id, channel, data)

    assert signing.verify_channel(KEY, SECRET, auth, socket_id, channel, data)


@given(st.lists(st.tuples(SOCKET_IDS, CHANNELS, st.none() | TEXTS), min_size=2, max_size=2, unique=True))
def test_a_signature_is_valid_only_for_what_was_signed(both: list[tuple[str, str, str | None]]) -> None:
    (socket_id, channel, data), other = both
    auth = signing.sign_channel(KEY, SECRET, socket_id, channel, data)

    assert not signing.verify_channel(KEY, SECRET, auth, *other)
    assert not signing.verify_channel("other", SECRET, auth, socket_id, channel, data)
    assert not signing.verify_channel(KEY, "other", auth, socket_id, channel, data)
    assert not signing.verify_user(KEY, SECRET, auth, socket_id, data or "")


@given(SOCKET_IDS, CHANNELS, st.text(max_size=120))
def test_only_the_exact_signature_verifies(socket_id: str, channel: str, auth: str) -> None:
    assume(auth != signing.sign_channel(KEY, SECRET, socket_id, channel))

    assert not signing.verify_channel(KEY, SECRET, auth, socket_id, channel)
    assert not signing.verify_user(KEY, SECRET, auth, socket_id, channel)
    assert not signing.verify_webhook(SECRET, channel.encode(), auth)


@pytest.mark.parametrize("socket_id", MALFORMED_IDS, ids=lambda text: repr(text[:20]))
def test_a_malformed_socket_id_is_never_signed_or_accepted(socket_id: str) -> None:
    with pytest.raises(ValueError, match="socket id"):
        signing.sign_channel(KEY, SECRET, socket_id, "private-a")
    with pytest.raises(ValueError, match="socket id"):
        signing.sign_user(KEY, SECRET, socket_id, "{}")
    auth = f"{KEY}:{hexadecimal(f'{socket_id}:private-a')}"
    assert not signing.verify_channel(KEY, SECRET, auth, socket_id, "private-a")
    assert not signing.verify_user(KEY, SECRET, f"{KEY}:{hexadecimal(f'{socket_id}::user::1')}", socket_id, "1")


@pytest.mark.parametrize("channel", MALFORMED_CHANNELS, ids=repr)
def test_a_malformed_channel_is_never_signed_or_accepted(channel: str) -> None:
    with pytest.raises(ValueError, match="channel"):
        signing.sign_channel(KEY, SECRET, "1.1", channel)
    assert not signing.verify_channel(KEY, SECRET, f"{KEY}:{hexadecimal(f'1.1:{channel}')}", "1.1", channel)


def test_a_lone_surrogate_is_a_wrong_signature_not_an_error() -> None:
    assert not signing.verify_channel(KEY, SECRET, "\ud800", "1.1", "private-a")
    assert not signing.verify_channel(KEY, SECRET, "x", "1.1", "private-a", "\ud800")
    assert not signing.verify_user(KEY, SECRET, "x", "1.1", "\ud800")
    assert not signing.verify_webhook(SECRET, b"{}", "\ud800")


def test_keys_are_lower_cased_and_sorted_and_values_unchanged() -> None:
    one = signing.sign_request(SECRET, "GET", "/p", [("B", "x y&z"), ("a", "1")])
    other = signing.sign_request(SECRET, "GET", "/p", [("a", "1"), ("b", "x y&z")])

    assert one == other == hexadecimal("GET\n/p\na=1&b=x y&z")


@given(st.binary(max_size=200), TEXTS)
def test_a_signed_query_verifies_after_url_encoding(body: bytes, prefix: str) -> None:
    from urllib.parse import parse_qsl

    query = signing.signed_query(KEY, SECRET, "GET", "/p", body, timestamp=1, params={"filter_by_prefix": prefix})
    received = dict(parse_qsl(query, keep_blank_values=True, strict_parsing=True))
    signature = received.pop("auth_signature")

    assert signing.verify_request(SECRET, "GET", "/p", received.items(), signature)
    assert ("body_md5" in received) == bool(body)
    assert not signing.verify_request(SECRET, "POST", "/p", received.items(), signature)


def test_webhooks_are_verified_over_the_exact_bytes() -> None:
    signature = signing.sign_webhook(SECRET, b'{"a":1}')

    assert signing.verify_webhook(SECRET, b'{"a":1}', signature)
    assert not signing.verify_webhook(SECRET, b'{"a": 1}', signature)
