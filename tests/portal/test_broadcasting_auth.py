"""Who may subscribe to the portal's channels, requested as Echo does."""

from __future__ import annotations

import msgspec
import pytest

from kit.portal import Person, World
from smartlink.protocol.signing import verify_channel, verify_user

KEY, SECRET = "app-key", "app-secret"


async def test_authenticated_user_can_access_private_channel(ana: Person) -> None:
    channel = f"private-user.{ana.id}"

    answer = await ana.post("/broadcasting/auth", {"socket_id": "1.2", "channel_name": channel})

    assert answer.status_code == 200
    data = answer.json()["channel_data"]
    assert msgspec.json.decode(data) == {"user_id": str(ana.id)}
    assert verify_channel(KEY, SECRET, answer.json()["auth"], "1.2", channel, data)


async def test_unauthenticated_user_cannot_access_private_channel(world: World) -> None:
    answer = await world.client().post("/broadcasting/auth", json={"channel_name": "private-user.1"})

    assert answer.status_code == 401


async def test_user_can_join_presence_channel(ana: Person) -> None:
    answer = await ana.client.post("/broadcasting/auth", data={"socket_id": "1.2", "channel_name": "presence-chat"})

    assert answer.status_code == 200
    member = msgspec.json.decode(answer.json()["channel_data"])
    assert member == {"user_id": str(ana.id), "user_info": {"id": ana.id, "name": "Ana"}}


async def test_pages_sign_in_as_their_user(ana: Person) -> None:
    answer = await ana.post("/broadcasting/user-auth", {"socket_id": "1.2"})

    user_data = answer.json()["user_data"]
    assert msgspec.json.decode(user_data)["id"] == str(ana.id)
    assert verify_user(KEY, SECRET, answer.json()["auth"], "1.2", user_data)


async def test_a_conversations_channel_is_for_its_two_users(ana: Person, ben: Person, eve: Person) -> None:
    low, high = sorted((ana.id, ben.id))
    body = {"socket_id": "1.2", "channel_name": f"private-chat.{low}.{high}"}

    answers = [(await who.post("/broadcasting/auth", body)).status_code for who in (ana, ben, eve)]

    assert answers == [200, 200, 403]


async def test_only_admins_may_subscribe_to_the_admin_channel(world: World, ana: Person) -> None:
    admin = await world.person("Admin", is_admin=True)
    body = {"socket_id": "1.2", "channel_name": "private-admin"}

    assert (await admin.post("/broadcasting/auth", body)).status_code == 200
    assert (await ana.post("/broadcasting/auth", body)).status_code == 403


@pytest.mark.parametrize(
    "channel",
    [
        "private-user.{eve}", "private-financial.{eve}", "private-campaign.1", "private-chat.{eve}.{ana}",
        "private-chat.{ana}.{ana}", "private-chat.0{ana}.{eve}", "private-chat.{ana}.{eve}.3", "private-user.0{ana}",
        "private-chat.{ana}.２", "private-private-user.{ana}", "presence-user.{ana}", "Private-user.{ana}",
        " private-user.{ana}", "private-user.{ana}\n", "private-user.{ana} ", "private-", "presence-", "", "chat",
        "private-user.9223372036854775808", "private-user.-1", "private-user.{ana}.x", "private-encrypted-user.{ana}",
        "#server-to-user-{ana}", "private-user.__proto__", "x" * 201, None, 7, ["private-user.{ana}"], {},
    ],
)  # fmt: skip
async def test_other_users_channels_are_refused_without_a_signature(ana: Person, eve: Person, channel: object) -> None:
    name = channel.format(ana=ana.id, eve=eve.id) if isinstance(channel, str) else channel

    answer = await ana.post("/broadcasting/auth", {"socket_id": "1.2", "channel_name": name})

    assert answer.status_code == 403
    assert "auth" not in answer.json()


@pytest.mark.parametrize("socket_id", ["1.1:private-x", "1.1\n", "١.١", "", "1", ["1.2"], None, "1" * 100 + ".1"])
async def test_a_malformed_socket_id_is_never_signed(ana: Person, socket_id: object) -> None:
    body = {"socket_id": socket_id, "channel_name": f"private-user.{ana.id}"}

    answer = await ana.post("/broadcasting/auth", body)

    assert answer.status_code == 422
    assert "auth" not in answer.json()


async def test_missed_events_are_served_only_for_allowed_channels(ana: Person, eve: Person) -> None:
    own = await ana.get(f"/api/events?channel=private-user.{ana.id}&after=0")
    foreign = [
        await ana.get(f"/api/events?channel={channel}&after=0")
        for channel in (f"private-user.{eve.id}", "private-admin", "bad%20name", "private-chat.1.1")
    ]

    assert own.json() == {"events": [], "complete": True}
    assert (await ana.get(f"/api/events?channel=private-user.{ana.id}")).json() == own.json()
    assert [answer.status_code for answer in foreign] == [403] * 4
    assert (await ana.get(f"/api/events?channel=private-user.{eve.id}")).status_code == 403
    assert (await ana.get("/api/events?channel=chat&after=x")).status_code == 422
    assert (await ana.get("/api/events?after=1")).status_code == 422
