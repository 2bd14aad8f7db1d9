"""Keeps `user_presence` at the truth of connections, and tells of changes only.

The realtime server says who came and went; a sweep compares with who is really there, for what a crash left.
"""

from __future__ import annotations

import datetime as dt
import re
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.dialects import postgresql, sqlite

from smartlink.broadcasting.webhooks import MemberAdded, MemberRemoved
from smartlink.portal.presence.channels import CHAT_PRESENCE
from smartlink.portal.presence.events import UserJoined, UserLeft
from smartlink.portal.presence.model import UserPresence
from smartlink.portal.shared.paging import MAX_ID
from smartlink.portal.shared.work import Announcer, Work
from smartlink.portal.users.model import User

__all__ = ["MemberEvent", "Presence", "member_events", "user_id_of"]

RECENT = dt.timedelta(minutes=5)
TOUCH_EVERY_S = 60.0
_USER_ID = re.compile(r"[1-9][0-9]{0,18}\Z")


@dataclass(frozen=True, slots=True)
class MemberEvent:
    """A webhook's word that a user came to a presence channel (`joined`) or left it."""

    user_id: int
    joined: bool


def user_id_of(text: object) -> int | None:
    """The user a member's id stands for; None when it is none of ours."""
    if not isinstance(text, str) or not _USER_ID.match(text) or int(text) > MAX_ID:
        return None
    return int(text)


class Presence:
    """Who is online."""

    def __init__(self, announcer: Announcer) -> None:
        self._announcer = announcer
        self._touched: dict[int, float] = {}

    async def online(self) -> Sequence[User]:
        """Users who are online and were seen in the last five minutes, by name."""
        found = (
            select(User)
            .join(UserPresence, UserPresence.user_id == User.id)
            .where(UserPresence.is_online, UserPresence.last_seen >= _now() - RECENT)
            .order_by(User.name, User.id)
            .limit(1000)
        )
        async with self._announcer.database.reading() as session:
            return (await session.scalars(found)).all()

    async def hear(self, events: Iterable[MemberEvent]) -> None:
        """Apply what the realtime server told, in order, in one transaction."""
        events = list(events)
        if not events:
            return
        async with self._announcer.work() as work:
            names = await _names(work, {event.user_id for event in events})
            for event in events:
                name = names.get(event.user_id)
                if name is not None:
                    await _set(work, event.user_id, name, online=event.joined)

    async def mend(self, present: Collection[int], as_of: dt.datetime) -> None:
        """Bring the table to who was on the channel at `as_of`. A row changed since then is newer and stays."""
        async with self._announcer.work() as work:
            gone = (
                select(User.id, User.name)
                .join(UserPresence, UserPresence.user_id == User.id)
                .where(UserPresence.is_online, UserPresence.updated_at < as_of)
            )
            left = [(user_id, name) for user_id, name in await work.session.execute(gone) if user_id not in present]
            for user_id, name in left:
                await _set(work, user_id, name, online=False)
            names = await _names(work, present)
            for user_id in sorted(names):
                await _set(work, user_id, names[user_id], online=True)
            if names:
                seen = update(UserPresence).where(UserPresence.user_id.in_(names), UserPresence.is_online)
                await work.session.execute(seen.values(last_seen=_now()))

    async def touch(self, work: Work, user_id: int) -> None:
        """Note that a user did something; written at most once a minute."""
        now = time.monotonic()
        if now - self._touched.get(user_id, -TOUCH_EVERY_S) < TOUCH_EVERY_S:
            return
        if len(self._touched) > 10_000:
            self._touched.clear()
        self._touched[user_id] = now
        seen = update(UserPresence).where(UserPresence.user_id == user_id).values(last_seen=_now())
        await work.session.execute(seen)


async def _names(work: Work, user_ids: Collection[int]) -> dict[int, str]:
    if not user_ids:
        return {}
    rows = await work.session.execute(select(User.id, User.name).where(User.id.in_(user_ids)))
    return dict(rows.all())


async def _set(work: Work, user_id: int, name: str, *, online: bool) -> None:
    """Write and announce a change; nothing of both when it is none. The row's own lock decides between two."""
    now = _now()
    values: dict[str, Any] = {"is_online": online, "last_seen": now, "updated_at": now}
    changed = await work.session.scalar(
        update(UserPresence)
        .where(UserPresence.user_id == user_id, UserPresence.is_online.is_not(online))
        .values(values)
        .returning(UserPresence.user_id)
    )
    if changed is None and online:
        insert: Any = sqlite.insert if _is_sqlite(work) else postgresql.insert
        added = insert(UserPresence).values(user_id=user_id, created_at=now, **values)
        changed = await work.session.scalar(
            added.on_conflict_do_nothing(index_elements=["user_id"]).returning(UserPresence.user_id)
        )
    if changed is not None:
        work.announce(UserJoined(user_id, name) if online else UserLeft(user_id, name))


def _is_sqlite(work: Work) -> bool:
    return work.session.get_bind().dialect.name == "sqlite"


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def member_events(events: Iterable[object]) -> list[MemberEvent]:
    """What a webhook's events say about our presence channel; everything else in them is for others."""
    found = []
    for event in events:
        if isinstance(event, MemberAdded | MemberRemoved) and event.channel == CHAT_PRESENCE:
            user_id = user_id_of(event.user_id)
            if user_id is not None:
                found.append(MemberEvent(user_id, isinstance(event, MemberAdded)))
    return found
