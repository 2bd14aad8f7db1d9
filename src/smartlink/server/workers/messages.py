"""The worker protocol: records between the workers and the worker hub in their parent, as msgpack of a fixed schema.

A worker sends `Hello` first; a hub of another `VERSION` refuses it. Questions to a port are `Call`s (see `calls`),
which the hub carries out in the order in which the worker sent them. A `Reply` that lets the worker announce something
carries a `turn`; the worker returns it in `Settled` after the announcement, and until then the hub holds back joins and
leaves of other workers on that channel.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import msgspec

from smartlink.server.cluster.brokers.base import Control, Publication, Retention
from smartlink.server.cluster.presence.base import Change

__all__ = [
    "MAX_BYTES",
    "VERSION",
    "Accepted",
    "Call",
    "ConnectionsElsewhere",
    "Drain",
    "ErrorReply",
    "ForwardedControl",
    "ForwardedPublication",
    "FromHub",
    "FromWorker",
    "Hello",
    "OperatorAnswer",
    "OperatorQuestion",
    "OperatorTold",
    "PresenceChange",
    "Ready",
    "Reload",
    "Reply",
    "Settled",
    "StartFailed",
    "WorkerReport",
    "encode",
    "forward",
    "forward_publication",
    "forwarded",
    "forwarded_publication",
    "from_hub",
    "from_worker",
]

VERSION: Final = 7
MAX_BYTES: Final = 64 * 1024 * 1024
"""Largest record; a larger one ends the connection."""


class Hello(msgspec.Struct, array_like=True, tag=1):
    """The first record of every worker. Its form is the same in all versions."""

    version: int
    pid: int


class Ready(msgspec.Struct, array_like=True, tag=2):
    """The worker accepts connections."""


class StartFailed(msgspec.Struct, array_like=True, tag=3):
    """The worker cannot start, and exits."""

    reason: str


class WorkerReport(msgspec.Struct, array_like=True, tag=4):
    """Sent each second: a sign of life, and the worker's counters."""

    figures: dict[str, float]


class OperatorAnswer(msgspec.Struct, array_like=True, tag=5):
    """The answer to the `OperatorQuestion` with this number, as JSON."""

    number: int
    answer: bytes


class OperatorTold(msgspec.Struct, array_like=True, tag=6):
    """What operators' watches collected, as JSON."""

    told: bytes


class ForwardedPublication(msgspec.Struct, array_like=True, tag=12):
    """A publication, in either direction; the hub forwards the record unchanged unless it gives it a position.

    Most come to the hub through the socket that orders them (`order`), with the `number` 0. For others the sender gets
    `Accepted`.
    """

    number: int
    app_id: str
    channel: str
    frame: bytes
    except_socket: str | None
    is_live: bool
    version: int = 0
    position: int = 0
    retention: Retention | None = None
    report_id: str | None = None
    published_at: float = 0.0
    trace: str | None = None


class ForwardedControl(msgspec.Struct, array_like=True, tag=13):
    """A control, in either direction; confirmed like a publication."""

    number: int
    app_id: str
    action: str
    target: str
    data: str


class Call(msgspec.Struct, array_like=True, tag=20):
    """A call of a port's method; `arguments` is an array. The worker gets a reply unless `number` is 0."""

    number: int
    port: str
    method: str
    arguments: msgspec.Raw


class Settled(msgspec.Struct, array_like=True, tag=22):
    """The worker has announced everything that replies up to this `turn` let it announce."""

    turn: int


# From the hub


class Reply(msgspec.Struct, array_like=True, tag=70):
    """The result of the call with this number."""

    number: int
    result: msgspec.Raw
    turn: int = 0


class ErrorReply(msgspec.Struct, array_like=True, tag=71):
    """The call with this number raised an error that its port declares (`calls.ERRORS`)."""

    number: int
    error: str


class Accepted(msgspec.Struct, array_like=True, tag=72):
    """The publication has its place in the order of its channel: what is published from now on comes later."""

    number: int


class ConnectionsElsewhere(msgspec.Struct, array_like=True, tag=76):
    """How many connections of the app the other workers have."""

    app_id: str
    connections: int


class PresenceChange(msgspec.Struct, array_like=True, tag=77):
    """What a dead worker left behind, for this worker to announce."""

    change: Change
    turn: int


class OperatorQuestion(msgspec.Struct, array_like=True, tag=80):
    """A question of operators for all nodes, as JSON (`observe.records`)."""

    number: int
    question: bytes


class Drain(msgspec.Struct, array_like=True, tag=90):
    """End: unready at once, ask clients to reconnect, exit. With `is_replaced`, stop accepting at once."""

    is_replaced: bool


class Reload(msgspec.Struct, array_like=True, tag=91):
    """Read applications and certificate again."""


FromWorker: TypeAlias = (
    Hello
    | Ready
    | StartFailed
    | WorkerReport
    | OperatorAnswer
    | OperatorTold
    | ForwardedPublication
    | ForwardedControl
    | Call
    | Settled
)
FromHub: TypeAlias = (
    ForwardedPublication
    | ForwardedControl
    | Reply
    | ErrorReply
    | Accepted
    | ConnectionsElsewhere
    | PresenceChange
    | OperatorQuestion
    | Drain
    | Reload
)

encode = msgspec.msgpack.Encoder().encode
from_worker = msgspec.msgpack.Decoder(FromWorker).decode
from_hub = msgspec.msgpack.Decoder(FromHub).decode


def forward(publication: Publication | Control, number: int = 0) -> ForwardedPublication | ForwardedControl:
    """Make the record that carries a publication; the sender gets `Accepted` for a `number` other than 0."""
    if isinstance(publication, Control):
        return ForwardedControl(number, publication.app_id, publication.action, publication.target, publication.data)
    return forward_publication(publication, number)


def forward_publication(publication: Publication, number: int = 0) -> ForwardedPublication:
    """As `forward`, for a publication."""
    return ForwardedPublication(
        number,
        publication.app_id,
        publication.channel,
        publication.frame,
        publication.except_socket,
        publication.is_live,
        publication.version,
        publication.position,
        publication.retention,
        publication.report_id,
        publication.published_at,
        publication.trace,
    )


def forwarded(record: ForwardedPublication | ForwardedControl) -> Publication | Control:
    """Return the publication that a record carries."""
    if isinstance(record, ForwardedControl):
        return Control(record.app_id, record.action, record.target, record.data)
    return forwarded_publication(record)


def forwarded_publication(record: ForwardedPublication) -> Publication:
    """As `forwarded`, for a publication."""
    return Publication(
        record.app_id,
        record.channel,
        record.frame,
        record.except_socket,
        record.is_live,
        record.version,
        record.position,
        record.retention,
        record.report_id,
        published_at=record.published_at,
        trace=record.trace,
    )
