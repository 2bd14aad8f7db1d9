"""Signatures of the protocol: of channel authorizations, HTTP API calls and webhooks.

All are HMAC-SHA256 in lower-case hex over a string that joins the parts with `:` or newlines. Parts chosen by a
stranger (socket id, channel) are validated before they are joined, on both sides: otherwise a signing endpoint could be
tricked into signing another channel, or even an HTTP API call. Verification covers the bytes received, in constant
time.

Sources: Pusher Channels, "Authentication signatures", "HTTP API reference: authentication", "Webhooks".
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from functools import lru_cache
from urllib.parse import quote

from smartlink.protocol.names import is_valid_channel, is_valid_socket_id

__all__ = [
    "AUTH_VERSION",
    "TIMESTAMP_WINDOW_S",
    "body_md5",
    "channel_secret",
    "sign_channel",
    "sign_request",
    "sign_user",
    "sign_webhook",
    "signed_query",
    "verify_channel",
    "verify_request",
    "verify_user",
    "verify_webhook",
]

AUTH_VERSION = "1.0"
TIMESTAMP_WINDOW_S = 600
_BLOCK_BYTES = 64
"""Of SHA-256."""


@lru_cache(maxsize=1_024)
def _keyed(secret: str) -> tuple[hashlib._Hash, hashlib._Hash]:
    """HMAC's two hashes with the key already in them (RFC 2104). To copy them costs a fifth of a new HMAC."""
    key = secret.encode()
    key = (key if len(key) <= _BLOCK_BYTES else hashlib.sha256(key).digest()).ljust(_BLOCK_BYTES, b"\0")
    return hashlib.sha256(bytes(byte ^ 0x36 for byte in key)), hashlib.sha256(bytes(byte ^ 0x5C for byte in key))


def _hex(secret: str, message: bytes) -> str:
    inner, outer = _keyed(secret)
    inner, outer = inner.copy(), outer.copy()
    inner.update(message)
    outer.update(inner.digest())
    return outer.hexdigest()


def _is_same(expected: str, received: str) -> bool:
    if expected.isascii() and received.isascii():
        return hmac.compare_digest(expected, received)
    # As bytes: compare_digest rejects other text, and the peer chooses this text.
    return hmac.compare_digest(expected.encode(), received.encode("utf-8", "surrogatepass"))


def _channel_message(socket_id: str, channel: str, channel_data: str | None) -> bytes:
    message = f"{socket_id}:{channel}" if channel_data is None else f"{socket_id}:{channel}:{channel_data}"
    return message.encode()


def sign_channel(key: str, secret: str, socket_id: str, channel: str, channel_data: str | None = None) -> str:
    """Authorize one socket for one channel: `key:hex`, to be sent as `auth` in `pusher:subscribe`.

    `channel_data` is the exact JSON text that the client will send along. Raises ValueError, without signing, if
    `socket_id` or `channel` is malformed.
    """
    if not is_valid_socket_id(socket_id):
        raise ValueError(f"not a socket id: {socket_id[:40]!r}; it has the form digits.digits")
    if not is_valid_channel(channel):
        raise ValueError(f"not a channel name: {channel[:40]!r}")
    return f"{key}:{_hex(secret, _channel_message(socket_id, channel, channel_data))}"


def verify_channel(
    key: str, secret: str, auth: str, socket_id: str, channel: str, channel_data: str | None = None
) -> bool:
    """Whether `auth` is the result of `sign_channel` for exactly these texts. Never raises."""
    if not is_valid_socket_id(socket_id) or not is_valid_channel(channel):
        return False
    if channel_data is not None and not channel_data.isascii():
        try:
            channel_data.encode()
        except UnicodeEncodeError:
            return False
    return _is_same(f"{key}:{_hex(secret, _channel_message(socket_id, channel, channel_data))}", auth)


def sign_user(key: str, secret: str, socket_id: str, user_data: str) -> str:
    """Sign a user in on one socket: `key:hex`. Raises ValueError if `socket_id` is malformed."""
    if not is_valid_socket_id(socket_id):
        raise ValueError(f"not a socket id: {socket_id[:40]!r}; it has the form digits.digits")
    return f"{key}:{_hex(secret, f'{socket_id}::user::{user_data}'.encode())}"


def verify_user(key: str, secret: str, auth: str, socket_id: str, user_data: str) -> bool:
    """Whether `auth` is the result of `sign_user` for exactly these texts. Never raises."""
    if not is_valid_socket_id(socket_id):
        return False
    try:
        message = f"{socket_id}::user::{user_data}".encode()
    except UnicodeEncodeError:
        return False
    return _is_same(f"{key}:{_hex(secret, message)}", auth)


def channel_secret(master_key: bytes, channel: str) -> bytes:
    """The secret of an encrypted channel, by its full name: 32 bytes, the key of NaCl's secretbox.

    Source: Pusher Channels, "Encrypted channels".
    """
    return hashlib.sha256(channel.encode() + master_key).digest()


def body_md5(body: bytes) -> str:
    """The `body_md5` parameter of an HTTP API call: not a secret, but a checksum inside the signed query."""
    return hashlib.md5(body, usedforsecurity=False).hexdigest()


def sign_request(secret: str, method: str, path: str, params: Iterable[tuple[str, str]]) -> str:
    """The `auth_signature` of an HTTP API call.

    `path` excludes the server's own prefix and the query; `params` are the query's pairs, unescaped, without
    `auth_signature`. Keys are lowered and sorted; values are used as they are.
    """
    pairs = sorted([(key.lower(), value) for key, value in params])
    query = "&".join(map("=".join, pairs))
    return _hex(secret, f"{method}\n{path}\n{query}".encode("utf-8", "surrogatepass"))


def verify_request(secret: str, method: str, path: str, params: Iterable[tuple[str, str]], signature: str) -> bool:
    """Whether `signature` is the result of `sign_request`. Never raises."""
    return _is_same(sign_request(secret, method, path, params), signature)


def signed_query(
    key: str,
    secret: str,
    method: str,
    path: str,
    body: bytes = b"",
    *,
    timestamp: int,
    params: Mapping[str, str] | None = None,
) -> str:
    """The complete query string of an HTTP API call, escaped, including the signature.

    `timestamp` is in whole seconds since 1970; the server accepts ten minutes either way.
    """
    pairs = dict(params or {})
    pairs |= {"auth_key": key, "auth_timestamp": str(timestamp), "auth_version": AUTH_VERSION}
    if body:
        pairs["body_md5"] = body_md5(body)
    pairs["auth_signature"] = sign_request(secret, method, path, pairs.items())
    return "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in sorted(pairs.items()))


def sign_webhook(secret: str, body: bytes) -> str:
    """The `X-Pusher-Signature` header of a webhook."""
    return _hex(secret, body)


def verify_webhook(secret: str, body: bytes, signature: str) -> bool:
    """Whether a webhook's body has a valid signature. Never raises."""
    return _is_same(_hex(secret, body), signature)
