"""What workers and switchboard say to each other: msgpack of a fixed schema, one record after its length.

A worker says `Hello` first; a switchboard of another `VERSION` turns it away. Questions carry an `id` of the worker's
own, which their answer repeats. Answers that let the worker announce something carry a `turn`; the worker repeats it in
`Settled` once it has, and until then nobody else's joins and leaves of that channel are carried out.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import msgspec

from smartlink.protocol.session import PresenceMember
from smartlink.server.cluster.history.base import HistoryEntry
from smartlink.server.cluster.presence.base import Arrival, Change, ChannelCount, Departure
from smartlink.server.runtime.rates import Totals
from smartlink.server.webhooks.base import OutgoingEvent

__all__ = [
    "MAX_BYTES",
    "VERSION",
    "Accepted",
    "Answered",
    "Append",
    "Appended",
    "Arrived",
    "Changed",
    "Channels",
    "Claim",
    "Claimed",
    "Complete",
    "Connections",
    "Count",
    "Counted",
    "Departed",
    "Describe",
    "Described",
    "Drain",
    "Elsewhere",
    "Failed",
    "FromSwitchboard",
    "FromWorker",
    "Hello",
    "Join",
    "Kept",
    "Latest",
    "Leave",
    "Listed",
    "Members",
    "Present",
    "Publish",
    "Ready",
    "Release",
    "Reload",
    "Report",
    "Settled",
    "Signal",
    "Since",
    "Subscribe",
    "Summed",
    "Tell",
    "TotalsAsked",
    "Unsubscribe",
    "Withdraw",
    "Workers",
    "encode",
    "from_switchboard",
    "from_worker",
]

VERSION: Final = 2
MAX_BYTES: Final = 64 * 1024 * 1024
"""Largest record; larger ends the connection."""


class Hello(msgspec.Struct, array_like=True, tag=1):
    version: int
    pid: int


class Ready(msgspec.Struct, array_like=True, tag=2):
    """The worker accepts connections."""


class Failed(msgspec.Struct, array_like=True, tag=3):
    """The worker cannot start, and ends."""

    reason: str


class Report(msgspec.Struct, array_like=True, tag=4):
    """Sent each second: a sign of life, and the worker's counters."""

    figures: dict[str, float]


class Subscribe(msgspec.Struct, array_like=True, tag=10):
    app_id: str
    channel: str


class Unsubscribe(msgspec.Struct, array_like=True, tag=11):
    app_id: str
    channel: str


class Publish(msgspec.Struct, array_like=True, tag=12):
    """A publication, on its way in or out: handed on as it came. With an `id` other than 0 its sender is answered."""

    id: int
    app_id: str
    channel: str
    frame: bytes
    except_socket: str | None
    is_live: bool
    version: int = 0


class Signal(msgspec.Struct, array_like=True, tag=13):
    """A control, on its way in or out; answered like a publication."""

    id: int
    app_id: str
    action: str
    target: str
    data: str


class Join(msgspec.Struct, array_like=True, tag=20):
    id: int
    app_id: str
    channel: str
    socket_id: str
    member: PresenceMember | None


class Leave(msgspec.Struct, array_like=True, tag=21):
    id: int
    app_id: str
    channel: str
    socket_id: str


class Settled(msgspec.Struct, array_like=True, tag=22):
    """All that followed from answers up to this `turn` has been said."""

    turn: int


class Members(msgspec.Struct, array_like=True, tag=23):
    id: int
    app_id: str
    channel: str


class Count(msgspec.Struct, array_like=True, tag=24):
    id: int
    app_id: str
    channel: str


class Channels(msgspec.Struct, array_like=True, tag=25):
    id: int
    app_id: str
    prefix: str


class Workers(msgspec.Struct, array_like=True, tag=26):
    """How many workers are there?"""

    id: int


class Connections(msgspec.Struct, array_like=True, tag=27):
    """How many connections of the app the worker has now."""

    app_id: str
    connections: int


class Describe(msgspec.Struct, array_like=True, tag=29):
    """Have a member told of with this `user_info`."""

    id: int
    app_id: str
    channel: str
    user_id: str
    user_info: bytes


class Withdraw(msgspec.Struct, array_like=True, tag=28):
    """Take out all that the worker entered into the roster."""


class Append(msgspec.Struct, array_like=True, tag=30):
    id: int
    app_id: str
    channel: str
    frame: bytes
    ttl_s: float


class Latest(msgspec.Struct, array_like=True, tag=31):
    id: int
    app_id: str
    channel: str


class Since(msgspec.Struct, array_like=True, tag=32):
    id: int
    app_id: str
    channel: str
    position: int


class Claim(msgspec.Struct, array_like=True, tag=40):
    id: int
    app_id: str
    key: str


class Complete(msgspec.Struct, array_like=True, tag=41):
    app_id: str
    key: str
    answer: bytes


class Release(msgspec.Struct, array_like=True, tag=42):
    app_id: str
    key: str


class Tell(msgspec.Struct, array_like=True, tag=50):
    """A webhook event: the switchboard's side delivers it."""

    app_id: str
    event: OutgoingEvent


class TotalsAsked(msgspec.Struct, array_like=True, tag=60):
    id: int


# From the switchboard


class Arrived(msgspec.Struct, array_like=True, tag=70):
    """The answer to `Join`; with the members as they are at this very moment, on presence channels."""

    id: int
    arrival: Arrival
    members: tuple[PresenceMember, ...] | None
    turn: int


class Departed(msgspec.Struct, array_like=True, tag=71):
    id: int
    departure: Departure
    turn: int


class Present(msgspec.Struct, array_like=True, tag=72):
    """The answer to `Members`: a `State`."""

    id: int
    members: tuple[PresenceMember, ...]
    version: int = 0
    subscriptions: int = 0


class Described(msgspec.Struct, array_like=True, tag=83):
    """The answer to `Describe`: the member as they were told of before, if they are there."""

    id: int
    member: PresenceMember | None


class Counted(msgspec.Struct, array_like=True, tag=73):
    id: int
    count: ChannelCount


class Listed(msgspec.Struct, array_like=True, tag=74):
    id: int
    channels: dict[str, ChannelCount]


class Answered(msgspec.Struct, array_like=True, tag=75):
    """A number: how many workers there are."""

    id: int
    number: int


class Elsewhere(msgspec.Struct, array_like=True, tag=76):
    """How many connections of the app the other workers have."""

    app_id: str
    connections: int


class Accepted(msgspec.Struct, array_like=True, tag=82):
    """The publication has its place in the order of its channel: whatever is published from now on comes later."""

    id: int


class Changed(msgspec.Struct, array_like=True, tag=77):
    """What a dead worker left behind, for this worker to announce."""

    change: Change
    turn: int


class Appended(msgspec.Struct, array_like=True, tag=78):
    id: int
    position: int


class Kept(msgspec.Struct, array_like=True, tag=79):
    """The answer to `Latest` (one or none) and `Since` (None: not all is kept)."""

    id: int
    entries: tuple[HistoryEntry, ...] | None


class Claimed(msgspec.Struct, array_like=True, tag=80):
    """`is_pending`: the call is being carried out; else the answer it got, or None: carry it out."""

    id: int
    is_pending: bool
    answer: bytes | None


class Summed(msgspec.Struct, array_like=True, tag=81):
    id: int
    totals: Totals


class Drain(msgspec.Struct, array_like=True, tag=90):
    """End: unready at once, connections told to come back, exit. With `is_replaced`, stop accepting at once."""

    is_replaced: bool


class Reload(msgspec.Struct, array_like=True, tag=91):
    """Read applications and certificate again."""


FromWorker: TypeAlias = (
    Hello
    | Ready
    | Failed
    | Report
    | Subscribe
    | Unsubscribe
    | Publish
    | Signal
    | Join
    | Leave
    | Settled
    | Members
    | Count
    | Describe
    | Channels
    | Workers
    | Connections
    | Withdraw
    | Append
    | Latest
    | Since
    | Claim
    | Complete
    | Release
    | Tell
    | TotalsAsked
)
FromSwitchboard: TypeAlias = (
    Publish
    | Signal
    | Arrived
    | Departed
    | Present
    | Counted
    | Described
    | Listed
    | Answered
    | Elsewhere
    | Accepted
    | Changed
    | Appended
    | Kept
    | Claimed
    | Summed
    | Drain
    | Reload
)

encode = msgspec.msgpack.Encoder().encode
from_worker = msgspec.msgpack.Decoder(FromWorker).decode
from_switchboard = msgspec.msgpack.Decoder(FromSwitchboard).decode
