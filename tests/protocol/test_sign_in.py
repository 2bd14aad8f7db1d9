"""Signing in: who is accepted or refused, and what it allows."""

from __future__ import annotations

import json
from typing import Any

import pytest

from smartlink.protocol.errors import Code
from smartlink.protocol.names import is_cache, is_user_channel, is_valid_user_id, user_channel
from smartlink.protocol.session import Close, Join, PresenceMember, Send, Session, SessionRules, SignIn
from smartlink.protocol.signing import sign_channel, sign_user


def session() -> Session:
    return Session("1.1", SessionRules(key="key", secret="secret"))


def sign_in(user: Any, socket_id: str = "1.1") -> str:
    user_data = user if isinstance(user, str) else json.dumps(user)
    auth = sign_user("key", "secret", socket_id, user_data)
    return json.dumps({"event": "pusher:signin", "data": {"auth": auth, "user_data": user_data}})


def subscribe(channel: str, **fields: str) -> str:
    return json.dumps({"event": "pusher:subscribe", "data": {"channel": channel} | fields})


def signed_in(user: Any) -> Session:
    one = session()
    (effect,) = one.receive(sign_in(user))
    assert isinstance(effect, SignIn)
    one.signed_in(effect.user)
    return one


def test_a_signed_user_is_accepted() -> None:
    (effect,) = session().receive(sign_in({"id": "7", "user_info": {"a": 1}, "watchlist": ["1", 2, "1"]}))

    assert isinstance(effect, SignIn)
    assert effect.user.member == PresenceMember("7", b'{"a":1}')
    assert effect.user.watchlist == ("1", "2")


@pytest.mark.parametrize("user", ["", "x", "[]", "null", {}, {"id": None}, {"id": ""}, {"id": []}, {"id": True}])
def test_a_user_without_an_id_is_refused(user: Any) -> None:
    (effect,) = session().receive(sign_in(user))

    assert isinstance(effect, Close)
    assert effect.code is Code.UNAUTHORIZED


def test_another_sockets_signature_is_refused() -> None:
    (effect,) = session().receive(sign_in({"id": "1"}, "1.2"))

    assert isinstance(effect, Close)


def test_data_may_be_a_string() -> None:
    envelope = json.loads(sign_in({"id": "1"}))
    (effect,) = session().receive(json.dumps(envelope | {"data": json.dumps(envelope["data"])}))

    assert isinstance(effect, SignIn)


def test_the_same_user_is_confirmed_again_and_another_refused() -> None:
    one = signed_in({"id": "1"})
    (same,) = one.receive(sign_in({"id": "1", "user_info": {}}))
    (other,) = one.receive(sign_in({"id": "2"}))

    assert isinstance(same, Send)
    assert b"pusher:signin_success" in same.frame
    assert isinstance(other, Send)
    assert b"pusher:error" in other.frame
    assert one.user is not None
    assert one.user.id == "1"


def test_only_the_users_own_user_channel_opens() -> None:
    one = signed_in({"id": "1"})

    assert one.receive(subscribe("#server-to-user-1")) == (Join("#server-to-user-1"),)
    (other,) = one.receive(subscribe("#server-to-user-11"))
    assert isinstance(other, Send)
    (nobody,) = session().receive(subscribe("#server-to-user-1"))
    assert isinstance(nobody, Send)


def test_without_channel_data_the_user_is_the_member() -> None:
    one = signed_in({"id": "1", "user_info": {"name": "Ana"}})
    auth = sign_channel("key", "secret", "1.1", "presence-a")

    assert one.receive(subscribe("presence-a", auth=auth)) == (
        Join("presence-a", PresenceMember("1", b'{"name":"Ana"}')),
    )
    (refused,) = session().receive(subscribe("presence-a", auth=auth))
    assert isinstance(refused, Send)


@pytest.mark.parametrize("watched", ["1", {}, 1, [None], [[]], [""], ["u" * 129]])
def test_an_invalid_watchlist_does_not_prevent_the_sign_in(watched: Any) -> None:
    (effect,) = session().receive(sign_in({"id": "1", "watchlist": watched}))

    assert isinstance(effect, SignIn)
    assert effect.user.watchlist == ()
    assert effect.user.watchlist_fault


def test_the_first_hundred_of_a_long_watchlist_are_watched() -> None:
    (effect,) = session().receive(sign_in({"id": "1", "watchlist": ["0", *map(str, range(101))]}))

    assert isinstance(effect, SignIn)
    assert effect.user.watchlist == tuple(map(str, range(100)))
    assert effect.user.watchlist_fault


@pytest.mark.parametrize(
    ("channel", "keeps"),
    [
        ("cache-a", True), ("private-cache-a", True), ("private-encrypted-cache-a", True), ("presence-cache-a", True),
        ("cache", False), ("cachea", False), ("Cache-a", False), ("private-a-cache-", False), ("a-cache-", False),
        ("presence-encrypted-cache-a", False), ("private-encryptedcache-a", False),
    ],
)  # fmt: skip
def test_cache_prefixes_are_matched_in_full(channel: str, keeps: bool) -> None:
    assert is_cache(channel) is keeps


@pytest.mark.parametrize(("user_id", "is_valid"), [("1", True), ("a b@ž", True), ("u" * 128, True), ("u" * 129, False),
                                                   ("", False), ("1\n", False), ("\0", False), (1, False)])  # fmt: skip
def test_valid_and_invalid_user_ids(user_id: Any, is_valid: bool) -> None:
    assert is_valid_user_id(user_id) is is_valid
    assert is_user_channel(user_channel(str(user_id))) is (is_valid or user_id == 1)
