"""Opens what was sealed for an encrypted channel. Source: Pusher Channels, "Encrypted channels" (NaCl's secretbox)."""

from __future__ import annotations

import base64
import binascii
from typing import Any

from smartlink.protocol.signing import channel_secret

__all__ = ["opened", "shared_secret"]

KEY_BYTES, NONCE_BYTES = 32, 24


def opened(secret: str, data: Any) -> str | None:
    """Return the payload in `data`, `{"nonce", "ciphertext"}`, with a channel's secret in base64.

    None if the secret does not open it, or it is not sealed at all.
    """
    from nacl.exceptions import CryptoError
    from nacl.secret import SecretBox

    if not isinstance(data, dict):
        return None
    try:
        key, nonce, ciphertext = map(_decoded, (secret, data.get("nonce"), data.get("ciphertext")))
        return SecretBox(key).decrypt(ciphertext, nonce).decode()
    except (CryptoError, ValueError, TypeError):
        return None


def _decoded(text: Any) -> bytes:
    return base64.b64decode(text, validate=True)


def shared_secret(master_key: str, channel: str) -> str:
    """Return a channel's secret, derived from a master key; both in base64. Raises ValueError for a malformed key."""
    try:
        key = _decoded(master_key)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != KEY_BYTES:
        raise ValueError(f"an encryption master key is {KEY_BYTES} bytes in base64")
    return base64.b64encode(channel_secret(key, channel)).decode()
