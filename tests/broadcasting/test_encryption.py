"""Encrypted channels: payloads are sealed when sent, and opened with the channel's secret."""

from __future__ import annotations

import base64
import hashlib
import json

import nacl.secret
import pytest

from smartlink.broadcasting import (
    BroadcastConfigError,
    Broadcaster,
    BroadcastRefused,
    BroadcastSettings,
    ChannelEncryption,
    EncryptedPrivateCacheChannel,
    EncryptedPrivateChannel,
    Envelope,
    PayloadTooLarge,
    PrivateChannel,
)
from smartlink.broadcasting.encryption import sealed_bytes
from smartlink.broadcasting.testing import FakeDriver

MASTER = base64.b64encode(b"k" * 32).decode()
OTHER = base64.b64encode(b"o" * 32).decode()
CHANNEL = "private-encrypted-vault"


def opened_as_a_client_does(channel: str, sealed: str, master: bytes = b"k" * 32) -> str:
    """What pusher-js does, with code of its own."""
    parts = json.loads(sealed)
    secret = hashlib.sha256(channel.encode() + master).digest()
    box = nacl.secret.SecretBox(secret)
    return box.decrypt(base64.b64decode(parts["ciphertext"]), base64.b64decode(parts["nonce"])).decode()


async def test_only_payloads_for_encrypted_channels_are_sealed() -> None:
    driver = FakeDriver()
    broadcaster = Broadcaster(driver, encryption=ChannelEncryption(MASTER))
    channels = (EncryptedPrivateChannel("vault"), EncryptedPrivateCacheChannel("vault"), PrivateChannel("vault"))

    await broadcaster.on(*channels).as_("e").with_({"gold": 7}).send()

    sealed, cached, plain = driver.sent
    assert "gold" not in sealed.payload + cached.payload
    assert opened_as_a_client_does(CHANNEL, sealed.payload) == '{"gold":7}'
    assert opened_as_a_client_does("private-encrypted-cache-vault", cached.payload) == '{"gold":7}'
    assert plain.payload == '{"gold":7}'


def test_each_channel_has_its_own_secret() -> None:
    encryption = ChannelEncryption(MASTER)

    expected = hashlib.sha256(CHANNEL.encode() + b"k" * 32).digest()
    assert base64.b64decode(encryption.shared_secret(CHANNEL)) == expected
    assert encryption.shared_secret(CHANNEL) != encryption.shared_secret(CHANNEL + "s")


def test_sealing_a_payload_twice_gives_different_ciphertexts() -> None:
    encryption = ChannelEncryption(MASTER)

    assert encryption.seal(CHANNEL, "{}") != encryption.seal(CHANNEL, "{}")


def test_after_a_rotation_the_new_key_seals_and_the_old_one_still_opens() -> None:
    before = ChannelEncryption(OTHER)
    after = ChannelEncryption(MASTER, previous=[OTHER])

    assert after.open(CHANNEL, before.seal(CHANNEL, '{"n":1}')) == '{"n":1}'
    assert opened_as_a_client_does(CHANNEL, after.seal(CHANNEL, '{"n":2}')) == '{"n":2}'
    with pytest.raises(ValueError, match="no master key opens"):
        before.open(CHANNEL, after.seal(CHANNEL, "{}"))


@pytest.mark.parametrize("sealed", ["", "[]", "{}", '{"nonce":"!","ciphertext":""}', '{"nonce":"","ciphertext":""}'])
def test_opening_an_unsealed_payload_fails(sealed: str) -> None:
    with pytest.raises(ValueError):
        ChannelEncryption(MASTER).open(CHANNEL, sealed)


@pytest.mark.parametrize("key", ["", "short", "k" * 32, MASTER[:-4], base64.b64encode(b"k" * 33).decode(), "é" * 32])
def test_an_invalid_key_is_refused_with_how_to_generate_one(key: str) -> None:
    with pytest.raises(BroadcastConfigError, match="token_bytes") as refused:
        ChannelEncryption(key)
    assert not key or key not in str(refused.value)


def test_settings_name_the_keys() -> None:
    settings = BroadcastSettings(
        _env_file=None, encryption_master_key=MASTER, encryption_master_key_previous=f"{OTHER}, {MASTER}"
    )
    encryption = ChannelEncryption.from_settings(settings)

    assert encryption is not None
    assert encryption.open(CHANNEL, ChannelEncryption(OTHER).seal(CHANNEL, "{}")) == "{}"
    assert ChannelEncryption.from_settings(BroadcastSettings(_env_file=None)) is None
    assert MASTER not in repr(settings)


def test_the_size_limit_applies_to_the_sealed_payload() -> None:
    broadcaster = Broadcaster(FakeDriver(), encryption=ChannelEncryption(MASTER))
    event = broadcaster.on(EncryptedPrivateChannel("vault")).with_({"x": "x" * 8_000}).event

    with pytest.raises(PayloadTooLarge, match="the limit is 10240"):
        broadcaster.pack(event)


@pytest.mark.parametrize("size", [0, 1, 2, 3, 100, 1001])
def test_the_sealed_size_is_computed_without_sealing(size: int) -> None:
    assert len(ChannelEncryption(MASTER).seal(CHANNEL, "x" * size)) == sealed_bytes(size)


async def test_a_recorded_event_without_a_key_is_refused_not_sent_unencrypted() -> None:
    driver = FakeDriver()

    with pytest.raises(BroadcastRefused, match="nothing is sent unencrypted"):
        await Broadcaster(driver).driver.send([Envelope(CHANNEL, "e", "{}")])
    assert driver.sent == []
