"""Ends connections because a control says so: those of a user, or those that missed publications."""

from __future__ import annotations

from smartlink.protocol.errors import Code
from smartlink.protocol.names import kind_of
from smartlink.protocol.session import PresenceMember
from smartlink.server.cluster.brokers.base import Control
from smartlink.server.core.grants import subjects, user_of
from smartlink.server.core.hub import Connection, Hub
from smartlink.server.core.revocations import Revocations, Verdict
from smartlink.server.net.framing import text_frame
from smartlink.server.runtime.eager import EagerTasks, yield_now_and_then
from smartlink.server.runtime.feed import Feed

__all__ = ["Terminations"]


class Terminations:
    """Carries out controls that end connections on this node."""

    def __init__(self, hub: Hub, revocations: Revocations, tasks: EagerTasks, feed: Feed) -> None:
        self._hub = hub
        self._revocations = revocations
        self._tasks = tasks
        self._feed = feed

    def terminate_user(self, control: Control) -> None:
        """End the user's connections here; their clients must not reconnect."""
        self._end_user(control, Verdict.VOID, Code.UNAUTHORIZED, "Connection ended by the application")

    def reconnect_user(self, control: Control) -> None:
        """End the user's connections here; their clients must reconnect."""
        self._end_user(control, Verdict.STALE, Code.RECONNECT, "The application requested a reconnect")

    def reconnect_channel(self, control: Control) -> None:
        """Make the connections on a channel reconnect, because publications were missed.

        Without a channel, controls were missed: connections of users, and on channels that need authorization,
        reconnect, as that may have ended.
        """
        if not control.target:
            self._revocations.revoke_all()
            connections, reason = self._hub.authorized(), "Events of another node were missed: reconnect"
        else:
            connections = self._hub.on_channel(control.app_id, control.target)
            reason = "Events were missed: reconnect"
        self._tasks.run(_close_all(connections, Code.RECONNECT, reason))

    def refuse_void(self, connection: Connection, channel: str, member: PresenceMember | None) -> bool:
        """Refuse a subscription that was revoked since the connection began, or whose user was ended.

        Returns whether it was refused.
        """
        app_id, session, began_at = connection.app.id, connection.session, connection.began_at
        if not self._revocations.may_concern(app_id, began_at) or not kind_of(channel).needs_authorization:
            return False
        user_id = user_of(connection, channel, member)
        about = subjects(channel, user_id, session.socket_id) + ([] if user_id is None else [user_id])
        verdicts = {self._revocations.verdict(app_id, subject, began_at) for subject in about}
        verdict = next((each for each in (Verdict.VOID, Verdict.STALE) if each in verdicts), Verdict.VALID)
        if verdict is Verdict.VALID:
            return False
        connection.write(text_frame(session.voided(channel).frame))
        why = "The signature is older than the call that revoked it, or that ended this user's connections"
        named = {"channel": channel, "user_id": user_id or "", "socket_id": session.socket_id}
        self._feed.problem("refused", app_id, why, **named)
        if verdict is Verdict.STALE:
            connection.close(Code.RECONNECT, "Reconnect and authorize again")
        return True

    def _end_user(self, control: Control, verdict: Verdict, code: Code, reason: str) -> None:
        oldest = self._hub.oldest(control.app_id)
        began_at = None if oldest is None else oldest.began_at
        self._revocations.revoke(control.app_id, control.target, verdict, began_at)
        self._tasks.run(_close_all(self._hub.of_user(control.app_id, control.target), code, reason))


async def _close_all(connections: list[Connection], code: Code, reason: str) -> None:
    for number, connection in enumerate(connections, 1):
        connection.close(code, reason)
        await yield_now_and_then(number)
