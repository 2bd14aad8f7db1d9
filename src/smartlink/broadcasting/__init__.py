"""Broadcasting for application authors: define events and channels; the library delivers them."""

from __future__ import annotations

import smartlink.broadcasting.requirements  # first: reports missing packages  # noqa: F401
from smartlink.broadcasting.anonymous import AnonymousBroadcast
from smartlink.broadcasting.authorization import ChannelRules, Decision, Grant, Member
from smartlink.broadcasting.authorizer import ChannelAuthorizer, RequestRefused
from smartlink.broadcasting.broadcaster import Broadcaster
from smartlink.broadcasting.channels import (
    CacheChannel,
    Channel,
    EncryptedPrivateCacheChannel,
    EncryptedPrivateChannel,
    PresenceCacheChannel,
    PresenceChannel,
    PrivateCacheChannel,
    PrivateChannel,
)
from smartlink.broadcasting.config import BroadcastSettings
from smartlink.broadcasting.drivers.base import Driver
from smartlink.broadcasting.encryption import ChannelEncryption
from smartlink.broadcasting.envelope import Delivery, Envelope
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
from smartlink.broadcasting.events import AnonymousEvent, BroadcastEvent, BroadcastNotification, BroadcastNow
from smartlink.broadcasting.facade import Broadcasting
from smartlink.broadcasting.manager import DriverManager
from smartlink.broadcasting.revocation import Revocation, RevokingDriver
from smartlink.broadcasting.routes import BroadcastingAuth
from smartlink.broadcasting.socket_id import (
    SocketIdMiddleware,
    SocketIdWsgiMiddleware,
    current_socket_id,
    from_socket,
)
from smartlink.broadcasting.sync import SyncBroadcaster
from smartlink.broadcasting.wsgi import BroadcastingAuthWsgi

__all__ = [
    "AnonymousBroadcast",
    "AnonymousEvent",
    "BroadcastConfigError",
    "BroadcastError",
    "BroadcastEvent",
    "BroadcastFailed",
    "BroadcastNotification",
    "BroadcastNow",
    "BroadcastRefused",
    "BroadcastSettings",
    "BroadcastUnavailable",
    "Broadcaster",
    "Broadcasting",
    "BroadcastingAuth",
    "BroadcastingAuthWsgi",
    "CacheChannel",
    "Channel",
    "ChannelAuthorizer",
    "ChannelEncryption",
    "ChannelRules",
    "Decision",
    "Delivery",
    "Driver",
    "DriverManager",
    "EncryptedPrivateCacheChannel",
    "EncryptedPrivateChannel",
    "Envelope",
    "Grant",
    "InvalidChannel",
    "InvalidEventName",
    "Member",
    "PayloadTooLarge",
    "PresenceCacheChannel",
    "PresenceChannel",
    "PrivateCacheChannel",
    "PrivateChannel",
    "RequestRefused",
    "Revocation",
    "RevokingDriver",
    "SocketIdMiddleware",
    "SocketIdWsgiMiddleware",
    "SyncBroadcaster",
    "UnserialisablePayload",
    "current_socket_id",
    "from_socket",
]
