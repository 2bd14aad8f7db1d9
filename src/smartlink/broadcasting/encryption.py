"""Encrypted channels: payloads that only publishers and subscribers can read, not the server between them.

Each channel has its own secret, derived from a master key that the server never sees; the authorization endpoint
returns it to authorized users. Source: Pusher Channels, "Encrypted channels" (NaCl's secretbox).
Needs the extra `encryption` (PyNaCl).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Protocol

import msgspec

from smartlink.broadcasting.config import BroadcastSettings
from smartlink.broadcasting.errors import BroadcastConfigError
from smartlink.protocol.signing import channel_secret

__all__ = ["ChannelEncryption", "sealed_bytes"]

KEY_BYTES = 32
_NONCE_BYTES, _TAG_BYTES = 24, 16
_VARIABLE = "BROADCAST_ENCRYPTION_MASTER_KEY"


class _Box(Protocol):
    def __init__(self, key: bytes) -> None: ...
    def encrypt(self, plaintext: bytes) -> bytes: ...
    def decrypt(self, ciphertext: bytes, nonce: bytes) -> bytes: ...


class _Sealed(msgspec.Struct):
    nonce: str
    ciphertext: str


class ChannelEncryption:
    """Encrypts payloads, and derives the channels' secrets.

    `master_key` is 32 bytes in base64. To rotate it, make the old key `previous` and the new one `master_key`, on
    publishers and the authorization endpoint together: all events are then encrypted with the new key, and subscribers
    with an old secret request a new one when they fail to decrypt an event. Previous keys only decrypt. Raises
    BroadcastConfigError for an invalid key, and without PyNaCl.
    """

    def __init__(self, master_key: str, previous: Sequence[str] = ()) -> None:
        self._box = _secretbox()
        self._key = _decoded(master_key, _VARIABLE)
        self._previous = tuple(_decoded(key, f"{_VARIABLE}_PREVIOUS") for key in previous)

    @classmethod
    def from_settings(cls, settings: BroadcastSettings) -> ChannelEncryption | None:
        """Return the configured encryption, or None without a key. Raises BroadcastConfigError."""
        if settings.encryption_master_key is None:
            return None
        previous = settings.encryption_master_key_previous
        older = previous.get_secret_value().split(",") if previous else []
        keys = [key.strip() for key in older if key.strip()]
        return cls(settings.encryption_master_key.get_secret_value(), keys)

    def shared_secret(self, channel: str) -> str:
        """Return the secret of a channel, by its full name, in base64: `shared_secret` of an authorization."""
        return base64.b64encode(channel_secret(self._key, channel)).decode()

    def seal(self, channel: str, payload: str) -> str:
        """Encrypt `payload` for a channel, by its full name. Returns the JSON text `{"nonce", "ciphertext"}`."""
        sealed = self._box(channel_secret(self._key, channel)).encrypt(payload.encode())
        nonce, ciphertext = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
        encoded = _Sealed(base64.b64encode(nonce).decode(), base64.b64encode(ciphertext).decode())
        return msgspec.json.encode(encoded).decode()

    def open(self, channel: str, sealed: str) -> str:
        """Decrypt what `seal` returned, with the master key or a previous one. Raises ValueError."""
        try:
            parts = msgspec.json.decode(sealed, type=_Sealed)
            nonce = base64.b64decode(parts.nonce, validate=True)
            ciphertext = base64.b64decode(parts.ciphertext, validate=True)
        except (msgspec.DecodeError, binascii.Error, ValueError):
            raise ValueError("not a sealed payload: it has a nonce and a ciphertext in base64") from None
        for key in (self._key, *self._previous):
            try:
                return self._box(channel_secret(key, channel)).decrypt(ciphertext, nonce).decode()
            except Exception as error:
                if not _is_crypto_error(error):
                    raise
        raise ValueError(f"no master key opens this payload of {channel}")


def sealed_bytes(payload_bytes: int) -> int:
    """Return the size of an encrypted payload of `payload_bytes`."""
    in_base64 = (payload_bytes + _TAG_BYTES + 2) // 3 * 4
    return len('{"nonce":"","ciphertext":""}') + _NONCE_BYTES // 3 * 4 + in_base64


def _decoded(text: str, variable: str) -> bytes:
    try:
        key = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != KEY_BYTES:
        raise BroadcastConfigError(
            f"{variable} is not {KEY_BYTES} bytes in base64; make one: "
            'python -c "import base64, secrets; print(base64.b64encode(secrets.token_bytes(32)).decode())"'
        )
    return key


def _secretbox() -> type[_Box]:
    try:
        from nacl.secret import SecretBox
    except ImportError:
        raise BroadcastConfigError(f"{_VARIABLE} needs PyNaCl: pip install 'smartlink-realtime[encryption]'") from None
    return SecretBox


def _is_crypto_error(error: Exception) -> bool:
    from nacl.exceptions import CryptoError

    return isinstance(error, CryptoError | ValueError | TypeError)
