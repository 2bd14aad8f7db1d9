"""`POST events` and `POST batch_events`: publishing.

A call with an `Idempotency-Key`, and an event with an `id`, are carried out once: repeated within two minutes on any
node, the call gets the same response and the event is not delivered again.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Coroutine
from operator import attrgetter
from typing import Any

import msgspec

from smartlink import tracing
from smartlink.protocol import encoding
from smartlink.protocol.names import (
    ChannelKind,
    is_reserved_event,
    is_user_channel,
    is_valid_channel,
    is_valid_event_name,
    is_valid_socket_id,
    kind_of,
)
from smartlink.server.apps.base import App
from smartlink.server.cluster.brokers.base import left_out
from smartlink.server.cluster.idempotency.base import CallUnderWay
from smartlink.server.core.node import Node
from smartlink.server.net.requests import HttpError, HttpRequest, HttpResponse
from smartlink.server.transports.http.rates import Rates

__all__ = ["COUNTS", "channel_info", "parse_info", "publish", "publish_batch"]

MAX_EVENT_ID_LENGTH = 200
COUNTS = frozenset({"user_count", "subscription_count"})
_IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]{1,200}\Z")
_PUBLISHED = b"published"
_NO_ATTRIBUTES: frozenset[str] = frozenset()
_NONE: frozenset[int] = frozenset()


class _Event(msgspec.Struct):
    name: str
    data: str | msgspec.Raw
    channel: str | None = None
    channels: list[str] | None = None
    socket_id: str | None = None
    info: str | None = None
    id: str | None = None
    live: bool = False
    except_user: str | None = None
    receipts: bool = False


class _Batch(msgspec.Struct):
    batch: list[_Event]


_event_decoder = msgspec.json.Decoder(_Event)
_batch_decoder = msgspec.json.Decoder(_Batch)
_EMPTY = HttpResponse()


class _Posting(msgspec.Struct, frozen=True):
    """One validated event for one channel. `receipt` is the key that identifies a repeat."""

    channel: str
    frame: bytes
    event: _Event
    attributes: frozenset[str]
    receipt: str | None


_receipt_of = attrgetter("receipt")


async def publish(node: Node, app: App, request: HttpRequest, rates: Rates) -> HttpResponse:
    """Publish one event to as many channels as the application allows, by default 100."""
    if "idempotency-key" in request.headers or "traceparent" in request.headers:
        return await _wrapped(node, app, request, "events", lambda trace: _publish(node, app, request, rates, trace))
    return await _publish(node, app, request, rates)


async def publish_batch(node: Node, app: App, request: HttpRequest, rates: Rates) -> HttpResponse:
    """Publish several events, by default up to ten, each to one channel, in order, or none of them."""
    return await _wrapped(
        node, app, request, "batch_events", lambda trace: _publish_batch(node, app, request, rates, trace)
    )


async def _wrapped(
    node: Node, app: App, request: HttpRequest, call: str, publish: Callable[[str | None], Awaitable[HttpResponse]]
) -> HttpResponse:
    """Carry out a call once, in a span of the caller's trace, if its headers say so."""
    span = tracing.begin(f"POST {call}", request.headers.get("traceparent"), is_server=True, app_id=app.id)
    trace = None if span is None else tracing.traceparent(span)
    try:
        if "idempotency-key" in request.headers:
            return await _once(node, app, request, call, lambda: publish(trace))
        return await publish(trace)
    finally:
        if span is not None:
            span.end()


async def _publish(node: Node, app: App, request: HttpRequest, rates: Rates, trace: str | None = None) -> HttpResponse:
    event = _decode(_event_decoder, request.body)
    channels = event.channels if event.channels is not None else [event.channel] if event.channel else []
    if not channels:
        raise HttpError(400, "channels (or channel) must name at least one channel")
    if len(channels) > app.max_event_channels:
        raise HttpError(400, f"{len(channels)} channels, more than {app.max_event_channels}")
    postings = _postings(node, app, event, channels)
    rates.publish(app, len(postings))
    infos = await _post(node, app, postings, trace)
    if not postings[0].attributes:
        return _EMPTY
    named = {posting.channel: info for posting, info in zip(postings, infos, strict=True)}
    return HttpResponse(msgspec.json.encode({"channels": named}))


async def _publish_batch(node: Node, app: App, request: HttpRequest, rates: Rates, trace: str | None) -> HttpResponse:
    events = _decode(_batch_decoder, request.body).batch
    if not events:
        raise HttpError(400, "batch is empty")
    if len(events) > app.max_batch:
        raise HttpError(400, f"Batch too large: {len(events)} events, more than {app.max_batch}")
    postings: list[_Posting] = []
    for event in events:
        if event.channel is None:
            raise HttpError(400, "each event of a batch must name one channel")
        postings += _postings(node, app, event, [event.channel])
    rates.publish(app, len(postings))
    infos = await _post(node, app, postings, trace)
    is_asked = any(posting.attributes for posting in postings)
    return HttpResponse(msgspec.json.encode({"batch": infos})) if is_asked else _EMPTY


async def _once(
    node: Node, app: App, request: HttpRequest, call: str, carry_out: Callable[[], Awaitable[HttpResponse]]
) -> HttpResponse:
    """Carry out a call, or return its previous answer. Raises HttpError 409 while that is pending."""
    key = request.headers["idempotency-key"]
    if _IDEMPOTENCY_KEY.match(key) is None:
        raise HttpError(400, "Idempotency-Key must have 1 to 200 visible ASCII characters")
    receipt = f"{call}\n{key}"
    answer = await _claim(node, app, receipt)
    if answer is not None:
        return HttpResponse(answer)
    try:
        response = await carry_out()
    except BaseException:
        await node.idempotency.release(app.id, receipt)
        raise
    await node.idempotency.complete(app.id, receipt, response.body)
    return response


async def _post(node: Node, app: App, postings: list[_Posting], trace: str | None) -> list[dict[str, Any]]:
    """Publish what was not published before, in order; return the requested attributes of each.

    If publishing fails half-way, what was sent stays marked as published: a repeat sends the rest.
    """
    claimed: dict[str, _Posting] = {}
    infos: list[dict[str, Any]] = []
    try:
        repeated = await _claim_all(node, app, postings, claimed) if any(map(_receipt_of, postings)) else _NONE
        for index, posting in enumerate(postings):
            if index not in repeated:
                await _send(node, app, posting, trace)
                if (receipt := posting.receipt) is not None:
                    del claimed[receipt]
                    await node.idempotency.complete(app.id, receipt, _PUBLISHED)
            attributes = posting.attributes
            infos.append(await channel_info(node, app, posting.channel, attributes) if attributes else {})
    finally:
        for receipt in claimed:
            await node.idempotency.release(app.id, receipt)
    return infos


async def _claim_all(node: Node, app: App, postings: list[_Posting], claimed: dict[str, _Posting]) -> set[int]:
    """Claim the events with an id, into `claimed`. Returns the indexes of those that were published before."""
    repeated: set[int] = set()
    for index, posting in enumerate(postings):
        if (receipt := posting.receipt) is not None:
            if receipt in claimed or await _claim(node, app, receipt) is not None:
                repeated.add(index)
            else:
                claimed[receipt] = posting
    return repeated


def _send(node: Node, app: App, posting: _Posting, trace: str | None) -> Coroutine[Any, Any, None]:
    event, report_id = posting.event, posting.event.id
    if report_id is not None and not event.receipts:
        is_reported = not event.live and node.policies.of(app.id, posting.channel).receipts
        report_id = report_id if is_reported else None
    except_who = left_out(event.socket_id, event.except_user)
    return node.publish(
        app, posting.channel, posting.frame, except_who, is_live=event.live, report_id=report_id, trace=trace
    )


async def _claim(node: Node, app: App, receipt: str) -> bytes | None:
    try:
        return await node.idempotency.claim(app.id, receipt)
    except CallUnderWay:
        raise HttpError(
            409, "The same call or event is in progress: try again in a moment", {"Retry-After": "1"}
        ) from None


def parse_info(info: str | None, known: frozenset[str] = COUNTS) -> frozenset[str]:
    """The attributes a caller requests. Raises HttpError 400 for an unknown one."""
    if not info:
        return _NO_ATTRIBUTES
    attributes = frozenset(part.strip() for part in info.split(","))
    if unknown := attributes - known:
        names = " and ".join(sorted(known, reverse=True))
        raise HttpError(400, f"info accepts {names} here, not {', '.join(sorted(unknown))[:60]!r}")
    return attributes


async def channel_info(node: Node, app: App, channel: str, attributes: frozenset[str]) -> dict[str, Any]:
    """The requested counts, cluster-wide; users are counted on presence channels only."""
    if not attributes & COUNTS:
        return {}
    count = await node.presence.count(app.id, channel)
    info: dict[str, Any] = {}
    if "user_count" in attributes and kind_of(channel) is ChannelKind.PRESENCE:
        info["user_count"] = count.users
    if "subscription_count" in attributes:
        info["subscription_count"] = count.subscriptions
    return info


def _decode(decoder: msgspec.json.Decoder[Any], body: bytes) -> Any:
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeError, RecursionError, ValueError) as error:
        raise HttpError(400, f"Invalid body: {str(error)[:200]}") from None


def _postings(node: Node, app: App, event: _Event, channels: list[str]) -> list[_Posting]:
    """Validate one event; return a posting per distinct channel. Raises HttpError 400 or 413."""
    longest = app.max_event_name_length
    if not is_valid_event_name(event.name) or len(event.name) > longest:
        raise HttpError(400, f"name must have 1 to {longest} characters and no control characters")
    if is_reserved_event(event.name):
        raise HttpError(400, "names that begin with pusher: or pusher_internal: are reserved")
    attributes = parse_info(event.info)
    for channel in channels:
        if not (is_valid_channel(channel) and len(channel) <= app.max_channel_length) and not is_user_channel(channel):
            raise HttpError(
                400, f"{channel[:40]!r} is not a channel: 1 to {app.max_channel_length} of A-Z a-z 0-9 _ - = @ , . ;"
            )
    if event.socket_id is not None and not is_valid_socket_id(event.socket_id):
        raise HttpError(400, "socket_id must have the form digits.digits")
    if event.except_user is not None and not is_valid_event_name(event.except_user):
        raise HttpError(400, "except_user must have 1 to 200 characters and no control characters")
    if event.id is not None and not 0 < len(event.id) <= MAX_EVENT_ID_LENGTH:
        raise HttpError(400, f"id must have 1 to {MAX_EVENT_ID_LENGTH} characters")
    if event.receipts and (event.id is None or event.live):
        raise HttpError(400, "receipts need an id to report, and a durable event")
    if not isinstance(event.data, str):
        raise HttpError(400, "data must be a string: encode objects as JSON first")
    size = len(event.data) if event.data.isascii() else len(event.data.encode())
    if size > app.max_event_bytes or app.channels:
        _check_size(node, app, channels, size)
    return [
        _Posting(
            channel,
            encoding.event(event.name, channel, event.data),
            event,
            attributes,
            None if event.id is None else f"event\n{channel}\n{event.id}",
        )
        for channel in (channels if len(channels) == 1 else dict.fromkeys(channels))
    ]


def _check_size(node: Node, app: App, channels: list[str], size: int) -> None:
    for channel in channels:
        most = node.policies.of(app.id, channel).max_event_bytes
        if size > (most or app.max_event_bytes):
            where = "" if most is None else f" on {channel}"
            most = most or app.max_event_bytes
            why = f"The data content of this event has {size} bytes, more than the {most} it may have{where}"
            raise HttpError(413, why)
