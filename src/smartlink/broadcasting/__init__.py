"""Broadcasting for application authors: say what happened, on which channels; the library sees that it arrives."""

from __future__ import annotations

from smartlink.broadcasting.authorization import ChannelRules, Decision, Member
from smartlink.broadcasting.broadcaster import Broadcaster
from smartlink.broadcasting.channels import Channel, EncryptedPrivateChannel, PresenceChannel, PrivateChannel
from smartlink.broadcasting.config import BroadcastSettings
from smartlink.broadcasting.drivers.base import Driver
from smartlink.broadcasting.envelope import Envelope, Promise
from smartlink.broadcasting.errors import (
    BroadcastConfigError,
    BroadcastError,
    BroadcastFailed,
    BroadcastRefused,
    BroadcastUnavailable,
    InvalidChannel,
    InvalidEventName,
    PayloadTooLarge,
    UnserialisablePayload,
)
from smartlink.broadcasting.events import BroadcastEvent
from smartlink.broadcasting.manager import DriverManager
from smartlink.broadcasting.routes import BroadcastingAuth, RequestRefused
from smartlink.broadcasting.socket_id import SocketIdMiddleware, current_socket_id

__all__ = [
    "BroadcastConfigError",
    "BroadcastError",
    "BroadcastEvent",
    "BroadcastFailed",
    "BroadcastRefused",
    "BroadcastSettings",
    "BroadcastUnavailable",
    "Broadcaster",
    "BroadcastingAuth",
    "Channel",
    "ChannelRules",
    "Decision",
    "Driver",
    "DriverManager",
    "EncryptedPrivateChannel",
    "Envelope",
    "InvalidChannel",
    "InvalidEventName",
    "Member",
    "PayloadTooLarge",
    "PresenceChannel",
    "PrivateChannel",
    "Promise",
    "RequestRefused",
    "SocketIdMiddleware",
    "UnserialisablePayload",
    "current_socket_id",
]
