"""Request and response schemas of the admin feature."""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from smartlink.broadcasting import InvalidChannel
from smartlink.broadcasting.channels import channel_of
from smartlink.portal.shared.text import PlainText
from smartlink.portal.users.schemas import Profile
from smartlink.protocol.names import is_reserved_event, is_valid_channel, is_valid_event_name

__all__ = [
    "AdminUser",
    "AuditOut",
    "ChannelOut",
    "ConnectionsOut",
    "ConsoleEntry",
    "Event",
    "FailedJob",
    "Figures",
    "ManualEvent",
    "MessageVersionOut",
    "Overview",
    "Sample",
    "UserChange",
    "Who",
]


class Figures(BaseModel):
    """The system's figures. Null: the component that knows the figure did not answer."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=True)

    at: dt.datetime
    realtime: Literal["up", "down"]
    connections: int | None = None
    channels: int | None = None
    nodes: int | None = None
    workers: int | None = None
    redis: str | None = None
    received_per_s: float | None = None
    published_per_s: float | None = None
    delivered_per_s: float | None = None
    publish_latency_ms: float | None = Field(None, description="Mean time from commit to acceptance, last minute")
    queue_waiting: int
    queue_lag_s: float
    queue_workers: int
    failed_jobs: int
    users_online: int
    errors: int = Field(description="5xx responses of this process since it started")


class Sample(BaseModel):
    """The figures at one time within the last hour."""

    model_config = ConfigDict(from_attributes=True)

    at: dt.datetime
    figures: dict[str, Any]


class Overview(BaseModel):
    """The figures now, and over the last hour, oldest first."""

    now: Figures
    history: list[Sample]


class AdminUser(BaseModel):
    """A user as admins see them."""

    id: int
    name: str
    email: str
    is_admin: bool
    blocked_at: dt.datetime | None
    is_online: bool
    last_seen: dt.datetime | None
    created_at: dt.datetime


class UserChange(BaseModel):
    """Changes to a user. Omitted fields stay as they are."""

    is_admin: Annotated[bool, Field(strict=True)] | None = None
    is_blocked: Annotated[bool, Field(strict=True)] | None = None


class Who(BaseModel):
    """A user on presence channels."""

    id: str
    name: str | None
    channels: list[str]


class ConnectionsOut(BaseModel):
    """The number of connections, and the users on presence channels."""

    connections: int
    users: list[Who]


class ChannelOut(BaseModel):
    """An occupied channel. `user_count` on presence channels only."""

    name: str
    subscription_count: int
    user_count: int | None


class Event(BaseModel):
    """A recorded event. `payload` is null for direct messages, which admins may not read."""

    id: int
    channel: str
    name: str
    payload: Any
    state: str
    created_at: dt.datetime
    sent_at: dt.datetime | None


class FailedJob(BaseModel):
    """A failed event; `error` is the reason."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    channel: str
    name: str
    payload: str
    attempts: int
    error: str
    created_at: dt.datetime


class AuditOut(BaseModel):
    """An action of an admin."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    action: str
    target: str
    detail: dict[str, Any]
    admin: Profile
    created_at: dt.datetime


class ConsoleEntry(BaseModel):
    """One line of the live console."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=True)

    kind: Literal["event", "join", "leave", "occupied", "vacated", "client_event", "error", "audit"]
    at: dt.datetime
    channel: str | None = None
    name: str | None = None
    detail: dict[str, Any] = Field(default_factory=dict)


def _channel(text: str) -> str:
    if not is_valid_channel(text):
        raise ValueError("must have 1 to 200 characters from A-Z a-z 0-9 _ - = @ , . ;")
    try:
        channel_of(text)
    except InvalidChannel:
        raise ValueError("must have at most one prefix, as in private-user.1") from None
    return text


def _event_name(text: str) -> str:
    if not is_valid_event_name(text):
        raise ValueError("must have 1 to 200 characters and no control characters")
    if is_reserved_event(text):
        raise ValueError("must not start with pusher: or pusher_internal:")
    return text


class ManualEvent(BaseModel):
    """An event written by hand: its channel's full name, its name, and an object as its payload."""

    channel: Annotated[PlainText, AfterValidator(_channel)]
    event: Annotated[PlainText, AfterValidator(_event_name)]
    data: dict[str, Any] = Field(default_factory=dict)


class MessageVersionOut(BaseModel):
    """The text that a message had until `replaced_at`; null for the present one."""

    model_config = ConfigDict(from_attributes=True)

    version: int
    message: str
    replaced_at: dt.datetime | None
