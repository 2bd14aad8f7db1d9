"""A client of the realtime server: listens to channels, misses nothing over a lost connection, and says so if it does.

async with Client("ws://127.0.0.1:8080", "app-key", auth=Endpoint("https://example.com/broadcasting/auth")) as client:
    orders = await client.subscribe("private-orders.7")
    async for event in orders.events(OrderShipped):
        print(event)
"""

from __future__ import annotations

from smartlink.client.authorization import Authorization, Authorizer, Endpoint, Own, Secret, UserAuthorization
from smartlink.client.channels import Channel, PresenceChannel, Readable
from smartlink.client.client import Client, ConnectionState
from smartlink.client.conversation import ServerError
from smartlink.client.errors import (
    AuthorizationDenied,
    AuthorizationUnavailable,
    ClientClosed,
    ClientError,
    ConnectionRefused,
    InvalidPayload,
    NotSubscribed,
    SignInFailed,
    SubscriptionFailed,
)
from smartlink.client.messages import Event, Gap, Member, MemberAdded, MemberRemoved, MemberUpdated, Watched
from smartlink.client.streams import Stream
from smartlink.client.sync import SyncChannel, SyncClient, SyncPresenceChannel, SyncReadable, SyncStream, SyncUser
from smartlink.client.users import User

__all__ = [
    "Authorization",
    "AuthorizationDenied",
    "AuthorizationUnavailable",
    "Authorizer",
    "Channel",
    "Client",
    "ClientClosed",
    "ClientError",
    "ConnectionRefused",
    "ConnectionState",
    "Endpoint",
    "Event",
    "Gap",
    "InvalidPayload",
    "Member",
    "MemberAdded",
    "MemberRemoved",
    "MemberUpdated",
    "NotSubscribed",
    "Own",
    "PresenceChannel",
    "Readable",
    "Secret",
    "ServerError",
    "SignInFailed",
    "Stream",
    "SubscriptionFailed",
    "SyncChannel",
    "SyncClient",
    "SyncPresenceChannel",
    "SyncReadable",
    "SyncStream",
    "SyncUser",
    "User",
    "UserAuthorization",
    "Watched",
]
