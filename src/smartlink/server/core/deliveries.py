"""Sends what the broker delivers to the subscribers here, but not to those it leaves out or who know it already."""

from __future__ import annotations

from collections.abc import Callable, Collection

from smartlink import tracing
from smartlink.protocol import encoding
from smartlink.server.cluster.brokers.base import (
    Publication,
    left_out_parts,
)
from smartlink.server.core.conflation import Waiting
from smartlink.server.core.fanout import FanOut, Subscriber, Subscribers
from smartlink.server.core.hub import Connection, Hub
from smartlink.server.core.listening import Listening
from smartlink.server.core.newcomers import Newcomers
from smartlink.server.core.noting import note_delivery
from smartlink.server.core.resumption import Resumption
from smartlink.server.net.framing import text_frame
from smartlink.server.runtime.feed import Feed

__all__ = ["Deliveries"]


class Deliveries:
    """The way of a publication from the broker to fan-out. Plain and synchronous."""

    def __init__(
        self,
        hub: Hub,
        fanout: FanOut,
        listening: Listening,
        newcomers: Newcomers,
        replayed: Newcomers,
        resumption: Resumption,
        feed: Feed,
        note_change: Callable[[Publication], int | None],
    ) -> None:
        """`replayed`: connections that were sent events again. `note_change` is called with the server's own frames
        and returns the version of a wrong change that was corrected already.
        """
        self._hub = hub
        self._fanout = fanout
        self._listening = listening
        self._newcomers = newcomers
        self._replayed = replayed
        self._resumption = resumption
        self._feed = feed
        self._note_change = note_change

    def deliver(self, publication: Publication) -> None:
        """Send a publication to the subscribers here. Never raises."""
        corrected = self._note_change(publication) if encoding.is_internal(publication.frame) else None
        self._listening.take(publication)
        subscribers = self._hub.channel(publication.app_id, publication.channel)
        if subscribers is None:
            return
        left_out: Collection[Connection] = ()
        if publication.except_socket is not None:
            left_out = self._left_out(publication, publication.except_socket)
        if publication.version:
            aware = self._newcomers.aware_of(publication.app_id, publication.channel, publication.version)
            left_out = {*left_out, *(each for each in aware if each in subscribers)}
        if publication.position:
            self._resumption.arrived(publication)
            sent = self._replayed.aware_of(publication.app_id, publication.channel, publication.position)
            left_out = {*left_out, *(each for each in sent if each in subscribers)}
        if corrected is not None:
            unaware = self._newcomers.aware_of(publication.app_id, publication.channel, corrected)
            if not unaware:
                return
            here = self._hub.on_channel(publication.app_id, publication.channel)
            left_out = {*left_out, *(each for each in here if each not in unaware)}
        if subscribers.conflated is not None and not encoding.is_internal(publication.frame):
            subscribers.conflated.publish(publication, left_out)
            return
        self._sent(publication, subscribers, publication.position)
        frame, published_at = text_frame(publication.frame), publication.published_at
        self._fanout.publish(subscribers, frame, *left_out, is_live=publication.is_live, published_at=published_at)
        if publication.trace is not None:
            self._trace(publication, subscribers)

    def send_waiting(self, subscribers: Subscribers, waiting: Waiting) -> None:
        """Send an event of a conflated channel."""
        self._sent(waiting.publication, subscribers, waiting.position)
        instead: dict[Subscriber, bytes] = {
            each: text_frame(frame) if frame else b"" for each, frame in waiting.instead.items()
        }
        frame = text_frame(waiting.publication.frame)
        self._fanout.publish(subscribers, frame, is_live=waiting.is_live, instead=instead)

    def _sent(self, publication: Publication, subscribers: Subscribers, position: int) -> None:
        if position:
            self._resumption.published(publication.app_id, publication.channel, subscribers, position)
        if self._feed.taps:
            note_delivery(self._feed, self._hub, publication)

    def _trace(self, publication: Publication, subscribers: Subscribers) -> None:
        """Trace the fan-out of what was just published, until it is written to all."""
        span = tracing.begin(
            "smartlink fan-out",
            publication.trace,
            app_id=publication.app_id,
            channel=publication.channel,
            receivers=len(subscribers),
        )
        if span is not None:
            subscribers.spans = (*subscribers.spans, span)

    def _left_out(self, publication: Publication, text: str) -> list[Connection]:
        """Return the connections on the channel that must not receive a publication."""
        app_id, channel = publication.app_id, publication.channel
        socket_id, user_id = left_out_parts(text)
        found = [] if user_id is None else self._hub.of_user(app_id, user_id)
        connection = self._hub.connection(app_id, socket_id)
        if connection is not None and connection not in found:
            found.append(connection)
        return [each for each in found if self._hub.receives(each, channel)]
