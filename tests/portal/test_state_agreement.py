"""The old state plus the events equals the state fetched again, for every action of every feature.

What an event means for a page is written once more here, as the reference has it, apart from the pages' own code. A
path of the API that changes something must be in one of the tables below.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from kit.portal import Person, World
from portal.test_presence import member, tell
from smartlink.broadcasting.envelope import Envelope

State = dict[str, Any]


@dataclass
class Scene:
    """Two people who have talked, a campaign, some money and an admin; ids of what there is."""

    world: World
    ana: Person
    ben: Person
    admin: Person
    message_id: int = 0
    general_id: int = 0
    campaign_id: int = 0
    notification_id: int = 0


Act = Callable[[Scene], Awaitable[Any]]

ACTIONS: dict[str, Act] = {
    "POST /api/chat/messages": lambda s: s.ben.post("/api/chat/messages", {"message": "To all"}),
    "POST /api/chat/messages/private": lambda s: s.ben.post(
        "/api/chat/messages/private", {"recipient_id": s.ana.id, "message": "To one"}
    ),
    "POST /api/chat/messages/{message_id}/read": lambda s: s.ana.post(f"/api/chat/messages/{s.message_id}/read"),
    "POST /api/chat/messages/private/{user_id}/read": lambda s: s.ana.post(
        f"/api/chat/messages/private/{s.ben.id}/read"
    ),
    "POST /api/chat/read": lambda s: s.ana.post("/api/chat/read", {"peer_id": s.ben.id, "last_read_id": s.message_id}),
    "POST /api/chat/messages/{message_id}/unread": lambda s: s.ana.post(f"/api/chat/messages/{s.general_id}/unread"),
    "PATCH /api/chat/messages/{message_id}": lambda s: s.ben.patch(
        f"/api/chat/messages/{s.message_id}", {"message": "second thoughts"}
    ),
    "PATCH /api/chat/messages/{message_id}: general": lambda s: s.ben.patch(
        f"/api/chat/messages/{s.general_id}", {"message": "Good evening"}
    ),
    "DELETE /api/chat/messages/{message_id}": lambda s: s.ben.delete(f"/api/chat/messages/{s.message_id}"),
    "DELETE /api/chat/messages/{message_id}: general": lambda s: s.ben.delete(f"/api/chat/messages/{s.general_id}"),
    "POST /api/notifications/read": lambda s: s.ana.post("/api/notifications/read"),
    "POST /api/notifications/{notification_id}/read": lambda s: s.ana.post(
        f"/api/notifications/{s.notification_id}/read"
    ),
    "POST /api/campaigns": lambda s: s.ana.post("/api/campaigns", {"name": "New", "budget": "5", "status": "active"}),
    "PATCH /api/campaigns/{campaign_id}": lambda s: s.admin.patch(
        f"/api/campaigns/{s.campaign_id}", {"name": "Renamed", "budget": "7.50", "status": "active"}
    ),
    "PUT /api/campaigns/{campaign_id}/budget": lambda s: s.admin.put(
        f"/api/campaigns/{s.campaign_id}/budget", {"budget": "9"}
    ),
    "POST /api/campaigns/{campaign_id}/activate": lambda s: s.admin.post(f"/api/campaigns/{s.campaign_id}/activate"),
    "POST /api/campaigns/{campaign_id}/deactivate": lambda s: _started_and_stopped(s),
    "DELETE /api/campaigns/{campaign_id}": lambda s: s.admin.delete(f"/api/campaigns/{s.campaign_id}"),
    "POST /api/wallet/deposits": lambda s: s.ana.post("/api/wallet/deposits", {"amount": "12.50"}),
    "POST /api/wallet/withdrawals": lambda s: s.ana.post("/api/wallet/withdrawals", {"amount": "3.20"}),
    "PATCH /api/user": lambda s: s.ben.patch("/api/user", {"name": "Benjamin"}),
    "POST /webhooks/realtime: member_added": lambda s: tell(s.world, member("added", s.admin)),
    "POST /webhooks/realtime: member_removed": lambda s: tell(s.world, member("removed", s.ben)),
}

UNHEARD: dict[str, str] = {
    "POST /api/chat/typing": "live: shown for six seconds, never fetched",
    "POST /broadcasting/auth": "a signature",
    "POST /broadcasting/user-auth": "a signature",
    "POST /api/register": "nobody shows a list of all users",
    "POST /api/login": "a token",
    "POST /api/logout": "a token",
    "POST /api/logout/everywhere": "tokens, sessions, connections",
    "POST /api/session": "a session",
    "DELETE /api/session": "a session",
    "PUT /api/user/password": "tokens, sessions, connections",
    "POST /api/tokens": "shown to the page that asked",
    "DELETE /api/tokens/{token_id}": "shown to the page that asked",
    "PATCH /api/admin/users/{user_id}": "tokens, sessions, connections",
    "POST /api/admin/users/{user_id}/disconnect": "connections",
    "POST /api/admin/failed-jobs/retry": "sends again what was announced",
    "POST /api/admin/failed-jobs/{event_id}/retry": "sends again what was announced",
    "DELETE /api/admin/failed-jobs": "what was given up",
    "DELETE /api/admin/failed-jobs/{event_id}": "what was given up",
    "POST /api/admin/broadcast": "an event by hand changes nothing",
}


async def _started_and_stopped(scene: Scene) -> Any:
    await scene.admin.post(f"/api/campaigns/{scene.campaign_id}/activate")
    return await scene.admin.post(f"/api/campaigns/{scene.campaign_id}/deactivate")


@pytest.fixture
async def scene(world: World, ana: Person, ben: Person) -> Scene:
    scene = Scene(world, ana, ben, await world.person("Admin", is_admin=True))
    scene.general_id = (await ben.post("/api/chat/messages", {"message": "Good morning"})).json()["id"]
    await world.direct_message(ben, ana, "first")
    scene.message_id = await world.direct_message(ben, ana, "second")
    scene.campaign_id = (await ana.post("/api/campaigns", {"name": "Spring", "budget": "100"})).json()["id"]
    await ana.post("/api/wallet/deposits", {"amount": "50"})
    scene.notification_id = (await ana.get("/api/notifications")).json()[0]["id"]
    await tell(world, member("added", ben))
    await world.broadcasts()
    return scene


def test_every_changing_endpoint_is_in_a_table(world: World) -> None:
    paths = world.portal.app.openapi()["paths"]
    changing = {
        f"{method.upper()} {path}"
        for path, methods in paths.items()
        for method in methods
        if method in ("post", "put", "patch", "delete")
    }

    in_the_schema = {name.partition(": ")[0] for name in ACTIONS}
    assert changing == in_the_schema | set(UNHEARD)
    assert not in_the_schema & set(UNHEARD)


@pytest.mark.parametrize("name", ACTIONS)
async def test_the_old_state_plus_the_events_equals_the_state_fetched_again(scene: Scene, name: str) -> None:
    viewers = {person.name: person for person in (scene.ana, scene.ben)}
    before = {who: await fetched(scene, person) for who, person in viewers.items()}
    old = len((await scene.world.broadcasts()).sent)

    answer = await ACTIONS[name](scene)

    assert answer.status_code < 300, answer.text
    sent = (await scene.world.broadcasts()).sent[old:]
    assert sent
    changed = False
    for who, person in viewers.items():
        heard = [envelope for envelope in sent if await may_hear(scene, person, envelope.channel)]
        lived = lived_through(before[who], heard, person.id)
        again = await fetched(scene, person)
        lived |= {part: again[part] for part in loaded_again(before[who], heard)}
        assert lived == again, who
        # Nothing moves when events come twice.
        assert lived_through(lived, heard, person.id) == again, who
        changed |= again != before[who]
    assert changed


async def may_hear(scene: Scene, person: Person, channel: str) -> bool:
    if channel == "chat":
        return True
    # What has been deleted may not be listened to any more; who listened heard it all the same.
    if channel == f"private-campaign.{scene.campaign_id}":
        return person is scene.ana
    body = {"socket_id": "1.1", "channel_name": channel}
    return (await person.post("/broadcasting/auth", body)).status_code == 200


async def fetched(scene: Scene, person: Person) -> State:
    """Everything that this person's pages show."""

    async def get(path: str) -> Any:
        answer = await person.get(path)
        assert answer.status_code == 200, f"{path}: {answer.text}"
        return answer

    peer = scene.ben if person is scene.ana else scene.ana
    notifications = await get("/api/notifications")
    state = {
        "general": {row["id"]: row for row in (await get("/api/chat/messages")).json()},
        "direct": {row["id"]: row for row in (await get(f"/api/chat/messages/private/{peer.id}")).json()},
        "conversations": {row["user"]["id"]: row for row in (await get("/api/chat/conversations")).json()},
        "notifications": {row["id"]: row for row in notifications.json()},
        "rooms": {row["peer_id"]: row for row in (await get("/api/chat/unread")).json() if row["unread_count"]},
        "unread": int(notifications.headers["x-unread-count"]),
        "campaigns": {row["id"]: row for row in (await get("/api/campaigns")).json()},
        "wallet": (await get("/api/wallet")).json(),
        "movements": {row["id"]: row for row in (await get("/api/wallet/transactions")).json()},
        "online": {row["id"]: row["name"] for row in (await get("/api/chat/users/online")).json()},
    }
    return _without_times(state)


def _without_times(value: Any) -> Any:
    """Times that an event need not carry are reduced to whether there is one."""
    if isinstance(value, dict):
        return {
            key: one is not None if key == "read_at" else _without_times(one)
            for key, one in value.items()
            if key not in ("updated_at", "created_at")
        }
    return value


def lived_through(before: State, heard: list[Envelope], me: int) -> State:
    """The state after these events."""
    state: State = copy.deepcopy(before)
    for envelope in heard:
        meaning = MEANINGS.get(envelope.name.rpartition("\\")[2])
        if meaning is not None:
            meaning(state, _without_times(json.loads(envelope.payload)), me)
    return state


def loaded_again(before: State, heard: list[Envelope]) -> set[str]:
    """The lists that pages ask for again, because of what they heard.

    A receipt goes to who wrote. Who read hears, on all pages, what is unread now.
    """
    of_direct = any(
        room["peer_id"] is not None
        for envelope in heard
        if envelope.name.endswith("\\UnreadChanged")
        for room in json.loads(envelope.payload)["rooms"]
    )
    return {"direct", "conversations"} if of_direct else set()


def _said(state: State, payload: State, me: int) -> None:
    message = payload["message"]
    if message["id"] not in state["general"] and message["user_id"] != me:
        _one_more(state, None, message["id"])
    state["general"].setdefault(message["id"], message)


def _one_more(state: State, peer_id: int | None, message_id: int) -> None:
    known = state["rooms"].get(peer_id, {"unread_count": 0, "first_unread_id": message_id})
    state["rooms"][peer_id] = known | {
        "peer_id": peer_id,
        "unread_count": known["unread_count"] + 1,
        "last_message_id": message_id,
    }


def _unread_changed(state: State, payload: State, _me: int) -> None:
    for room in payload["rooms"]:
        state["rooms"].pop(room["peer_id"], None)
        if room["unread_count"]:
            state["rooms"][room["peer_id"]] = room


def _said_to_one(state: State, payload: State, me: int) -> None:
    message = payload["message"]
    if message["id"] in state["direct"]:
        return
    state["direct"][message["id"]] = message
    peer = message["recipient"] if message["user_id"] == me else message["user"]
    if message["user_id"] != me:
        _one_more(state, peer["id"], message["id"])
    known = state["conversations"].get(peer["id"], {"unread_count": 0})
    unread = known["unread_count"] + (message["user_id"] != me)
    state["conversations"][peer["id"]] = {"user": peer, "last_message": message, "unread_count": unread}


def _text_changed(state: State, payload: State, _me: int) -> None:
    message = payload["message"]
    last = [conversation["last_message"] for conversation in state["conversations"].values()]
    for known in (*state["general"].values(), *state["direct"].values(), *last):
        if known["id"] == message["id"] and known["version"] < message["version"]:
            known |= {part: message[part] for part in ("message", "version", "edited_at", "deleted_at")}


def _notification_changed(state: State, payload: State, _me: int) -> None:
    notification = payload["notification"]
    if notification["id"] in state["notifications"]:
        state["notifications"][notification["id"]]["data"] = notification["data"]


def _was_read(state: State, payload: State, _me: int) -> None:
    message = payload["message"]
    state["direct"][message["id"]] = message
    for conversation in state["conversations"].values():
        if conversation["last_message"]["id"] == message["id"]:
            conversation["last_message"] = message


def _was_notified(state: State, payload: State, _me: int) -> None:
    notification = payload["notification"]
    if notification["id"] not in state["notifications"]:
        state["notifications"][notification["id"]] = notification
        state["unread"] += not notification["read_at"]


def _notification_was_read(state: State, payload: State, _me: int) -> None:
    notification = state["notifications"][payload["notificationId"]]
    if not notification["read_at"]:
        notification["read_at"] = True
        state["unread"] -= 1


def _notifications_were_read(state: State, payload: State, me: int) -> None:
    up_to = [one for one in state["notifications"] if one <= payload["upTo"]]
    for notification_id in payload["notificationIds"] or up_to:
        _notification_was_read(state, {"notificationId": notification_id}, me)


def _campaign_came(state: State, payload: State, _me: int) -> None:
    campaign = payload["campaign"]
    known = state["campaigns"].get(campaign["id"])
    if known is None or campaign["version"] >= known["version"]:
        state["campaigns"][campaign["id"]] = campaign


def _campaign_changed(state: State, payload: State, me: int) -> None:
    if payload["campaign"]["id"] in state["campaigns"]:
        _campaign_came(state, payload, me)


def _campaign_went(state: State, payload: State, _me: int) -> None:
    state["campaigns"].pop(payload["campaign"]["id"], None)


def _moved(kind: str) -> Callable[[State, State, int], None]:
    def moved(state: State, payload: State, _me: int) -> None:
        row = {"id": payload["transactionId"], "type": kind, "amount": payload["amount"]}
        state["movements"].setdefault(payload["transactionId"], row)

    return moved


def _balance(state: State, payload: State, _me: int) -> None:
    if payload["version"] > state["wallet"]["version"]:
        state["wallet"] |= {"balance": payload["newBalance"], "version": payload["version"]}
        newest = state["movements"][max(state["movements"])]
        newest |= {"balance_after": payload["newBalance"], "version": payload["version"]}


def _came_online(state: State, payload: State, _me: int) -> None:
    state["online"][payload["id"]] = payload["name"]


def _went_offline(state: State, payload: State, _me: int) -> None:
    state["online"].pop(payload["id"], None)


def _renamed(state: State, payload: State, _me: int) -> None:
    user = payload["user"]
    conversations = state["conversations"].values()
    messages = [*state["general"].values(), *state["direct"].values(), *(one["last_message"] for one in conversations)]
    for shown in (*messages, *conversations):
        for part in ("user", "recipient"):
            if part in shown and shown[part]["id"] == user["id"]:
                shown[part] = user
    if user["id"] in state["online"]:
        state["online"][user["id"]] = user["name"]


MEANINGS: dict[str, Callable[[State, State, int], None]] = {
    "MessageSent": _said,
    "PrivateMessageSent": _said_to_one,
    "MessageUpdated": _text_changed,
    "MessageDeleted": _text_changed,
    "MessageRead": _was_read,
    "NotificationCreated": _was_notified,
    "NotificationChanged": _notification_changed,
    "NotificationRead": _notification_was_read,
    "NotificationsRead": _notifications_were_read,
    "UnreadChanged": _unread_changed,
    "CampaignCreated": _campaign_came,
    "CampaignUpdated": _campaign_changed,
    "CampaignActivated": _campaign_changed,
    "CampaignDeactivated": _campaign_changed,
    "BudgetChanged": _campaign_changed,
    "CampaignDeleted": _campaign_went,
    "DepositCompleted": _moved("deposit"),
    "WithdrawalProcessed": _moved("withdrawal"),
    "BalanceUpdated": _balance,
    "UserJoined": _came_online,
    "UserLeft": _went_offline,
    "UserUpdated": _renamed,
}
