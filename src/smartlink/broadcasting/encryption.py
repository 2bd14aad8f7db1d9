"""Encrypted channels: payloads that only publishers and subscribers can read, not the server between them.

Each channel has a secret of its own, derived from one master key that the server never sees; the authorisation
endpoint hands it to those whom a rule lets in. Source: Pusher Channels, "Encrypted channels" (NaCl's secretbox).
Needs the extra `encryption` (PyNaCl).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Sequence
from typing import Protocol

import msgspec

from smartlink.broadcasting.config import BroadcastSettings
from smartlink.broadcasting.errors import BroadcastConfigError

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
    """Seals payloads, and gives the secret that opens them.

    `master_key` is 32 bytes in base64. To change it, make the old one a `previous` key and the new one the
    `master_key`, on publishers and the authorisation endpoint together: everything is sealed with the new key at
    once, and a subscriber who still holds a secret of the old key asks the endpoint again by itself when it cannot
    open an event. Previous keys only open what was sealed before. Raises BroadcastConfigError for a key that is
    none, and without PyNaCl.
    """

    def __init__(self, master_key: str, previous: Sequence[str] = ()) -> None:
        self._box = _secretbox()
        self._key = _decoded(master_key, _VARIABLE)
        self._previous = tuple(_decoded(key, f"{_VARIABLE}_PREVIOUS") for key in previous)

    @classmethod
    def from_settings(cls, settings: BroadcastSettings) -> ChannelEncryption | None:
        """As `settings` say; None when they name no key. Raises BroadcastConfigError."""
        if settings.encryption_master_key is None:
            return None
        previous = settings.encryption_master_key_previous
        older = previous.get_secret_value().split(",") if previous else []
        keys = [key.strip() for key in older if key.strip()]
        return cls(settings.encryption_master_key.get_secret_value(), keys)

    def shared_secret(self, channel: str) -> str:
        """The secret of a channel, by its wire name, in base64: `shared_secret` of an authorisation."""
        return base64.b64encode(_secret(self._key, channel)).decode()

    def seal(self, channel: str, payload: str) -> str:
        """`payload`, for a channel by its wire name, as the JSON that travels: `{"nonce", "ciphertext"}`."""
        sealed = self._box(_secret(self._key, channel)).encrypt(payload.encode())
        nonce, ciphertext = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
        encoded = _Sealed(base64.b64encode(nonce).decode(), base64.b64encode(ciphertext).decode())
        return msgspec.json.encode(encoded).decode()

    def open(self, channel: str, sealed: str) -> str:
        """The payload that `seal` was given, with this master key or a previous one. Raises ValueError."""
        try:
            parts = msgspec.json.decode(sealed, type=_Sealed)
            nonce = base64.b64decode(parts.nonce, validate=True)
            ciphertext = base64.b64decode(parts.ciphertext, validate=True)
        except (msgspec.DecodeError, binascii.Error, ValueError):
            raise ValueError("not a sealed payload: it has a nonce and a ciphertext in base64") from None
        for key in (self._key, *self._previous):
            try:
                return self._box(_secret(key, channel)).decrypt(ciphertext, nonce).decode()
            except Exception as error:
                if not _is_crypto_error(error):
                    raise
        raise ValueError(f"no master key opens this payload of {channel}")


def sealed_bytes(payload_bytes: int) -> int:
    """How many bytes a payload of `payload_bytes` takes when it is sealed."""
    in_base64 = (payload_bytes + _TAG_BYTES + 2) // 3 * 4
    return len('{"nonce":"","ciphertext":""}') + _NONCE_BYTES // 3 * 4 + in_base64


def _secret(master_key: bytes, channel: str) -> bytes:
    return hashlib.sha256(channel.encode() + master_key).digest()


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
