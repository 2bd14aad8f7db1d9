"""Announces who joined, who left, and how many subscribers there are: to the subscribers, and to webhooks."""

from __future__ import annotations

from collections.abc import Callable

from smartlink.protocol import encoding
from smartlink.protocol.names import is_counted, is_internal
from smartlink.protocol.session import PresenceMember
from smartlink.server.apps.base import App, AppManager
from smartlink.server.apps.policies import PolicyTable
from smartlink.server.cluster.brokers.base import Broker, BrokerUnavailable, Publication
from smartlink.server.cluster.presence.base import Arrival, Change, Departure, PresenceStore
from smartlink.server.core.counts import CountPace
from smartlink.server.runtime.eager import EagerTasks
from smartlink.server.webhooks.base import OutgoingEvent, WebhookSink

__all__ = ["Announcer"]


class Announcer:
    """Turns changes of channels into publications and webhook events.

    `deliver` sends to clients of this node alone.
    """

    def __init__(
        self,
        broker: Broker,
        presence: PresenceStore,
        apps: AppManager,
        policies: PolicyTable,
        webhooks: WebhookSink,
        tasks: EagerTasks,
        deliver: Callable[[Publication], None],
    ) -> None:
        self._broker = broker
        self._presence = presence
        self._apps = apps
        self._policies = policies
        self._webhooks = webhooks
        self._tasks = tasks
        self._deliver = deliver
        self.counts = CountPace(self._send_count)

    def stop(self) -> None:
        """Cancel what is scheduled."""
        self.counts.stop()

    async def publish_here_at_least(self, publication: Publication) -> None:
        """Publish a change that presence stores reconcile elsewhere when the nodes reach each other again."""
        try:
            await self._broker.publish(publication)
        except BrokerUnavailable:
            self._deliver(publication)

    def emit(self, app: App, event: OutgoingEvent) -> None:
        """Notify webhooks of an event, unless its channel is the server's own."""
        if not is_internal(event.channel):
            self._webhooks.emit(app, event)

    async def arrived(
        self, app: App, channel: str, socket_id: str, member: PresenceMember | None, arrival: Arrival
    ) -> None:
        """Announce what a join changed; the connection that joined does not receive its own member."""
        if arrival.is_first_on_channel:
            self.emit(app, OutgoingEvent("channel_occupied", channel))
        if member is not None and arrival.is_first_of_user:
            await self._member_added(app, channel, member, arrival.version, socket_id)
        self._count(app, channel, arrival.subscriptions)

    async def departed(self, app: App, channel: str, member: PresenceMember | None, departure: Departure) -> None:
        """Announce what a leave changed."""
        if member is not None and departure.is_last_of_user:
            await self._member_removed(app, channel, member, departure.version)
        if departure.is_last_on_channel:
            self.emit(app, OutgoingEvent("channel_vacated", channel))
        self._count(app, channel, departure.subscriptions)

    async def changed(self, app: App, change: Change) -> None:
        """Announce what a dead node left behind, or what a node brings that is reached again."""
        channel = change.channel
        if change.is_occupied:
            self.emit(app, OutgoingEvent("channel_occupied", channel))
        for member in change.added:
            await self._member_added(app, channel, member, change.version)
        for member in change.removed:
            await self._member_removed(app, channel, member, change.version)
        if change.is_vacated:
            self.emit(app, OutgoingEvent("channel_vacated", channel))
        if self._sends_counts(app, channel):
            self._count(app, channel, (await self._presence.count(app.id, channel)).subscriptions)

    async def _member_added(
        self, app: App, channel: str, member: PresenceMember, version: int, except_socket: str | None = None
    ) -> None:
        self._webhooks.emit(app, OutgoingEvent("member_added", channel, member.user_id))
        frame = encoding.member_added(channel, member.raw_id, member.user_info)
        await self.publish_here_at_least(Publication(app.id, channel, frame, except_socket, version=version))

    async def _member_removed(self, app: App, channel: str, member: PresenceMember, version: int) -> None:
        self._webhooks.emit(app, OutgoingEvent("member_removed", channel, member.user_id))
        frame = encoding.member_removed(channel, member.raw_id)
        await self.publish_here_at_least(Publication(app.id, channel, frame, version=version))

    def _count(self, app: App, channel: str, count: int) -> None:
        """Note the number of subscribers, if the app sends it on this channel."""
        if self._sends_counts(app, channel):
            self.counts.changed(app.id, channel, count)

    def _sends_counts(self, app: App, channel: str) -> bool:
        wanted = self._policies.of(app.id, channel).subscription_count
        return (app.sends_subscription_counts if wanted is None else wanted) and is_counted(channel)

    def _send_count(self, app_id: str, channel: str, count: int | None, received: int | None) -> None:
        app = self._apps.by_id(app_id)
        if app is not None and self._sends_counts(app, channel):
            self._tasks.run(self._publish_count(app, channel, count, received))

    async def _publish_count(self, app: App, channel: str, count: int | None, received: int | None) -> None:
        if count is None:
            count = (await self._presence.count(app.id, channel)).subscriptions
            if count == received:
                return
        self._webhooks.emit(app, OutgoingEvent("subscription_count", channel, subscription_count=count))
        if count:
            frame = encoding.subscription_count(channel, count)
            await self.publish_here_at_least(Publication(app.id, channel, frame))
