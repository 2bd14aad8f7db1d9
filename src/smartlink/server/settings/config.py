"""Settings of the realtime server: read once from the environment and `.env`, frozen, each documented.

Names and meaning are Laravel Reverb's where it has one. Sources: `REVERB_SERVER_*` is this process, `REVERB_APP_*` the
application it serves. `check_start` refuses what would be unsafe.
"""

from __future__ import annotations

import ipaddress
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AliasChoices, Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from smartlink.server.settings.forms import fault_of_allowed_origin, fault_of_event, fault_of_name, fault_of_origin
from smartlink.server.settings.redis_address import BadAddress, Kind, RedisAddress, parse_hosts, parse_url

__all__ = ["SAMPLE_SECRETS", "ServerSettings", "UnsafeSettings", "is_loopback", "is_safe_secret", "is_webhook_url"]

SAMPLE_SECRETS = frozenset({"app-secret", "secret", "reverb-secret", "your-app-secret", "changeme"})
MIN_SECRET_LENGTH = 20
"""As long as those that Reverb and Pusher hand out: who comes from them keeps theirs."""


class UnsafeSettings(ValueError):
    """Settings that must not be reachable from other machines; the message says what to write instead."""


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a listener bound to `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_safe_secret(secret: str, host: str) -> bool:
    """Whether an application with this secret may be served on `host`: on this machine any, elsewhere long ones."""
    return is_loopback(host) or (secret not in SAMPLE_SECRETS and len(secret) >= MIN_SECRET_LENGTH)


def is_webhook_url(url: str) -> bool:
    """Whether webhooks can be posted to `url`, as far as its form tells."""
    try:
        parts = urlsplit(url)
        has_host = bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and has_host and "@" not in parts.netloc


def _revealed(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()


class ServerSettings(BaseSettings):
    """Everything the realtime server can be told. Durations in seconds, sizes in bytes."""

    model_config = SettingsConfigDict(
        env_file=".env",
        env_file_encoding="utf-8",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        populate_by_name=True,
    )

    # This process
    reverb_server_host: str = Field("127.0.0.1", description="Address to listen on")
    reverb_server_port: int = Field(8080, ge=0, le=65_535, description="Port to listen on; 0 takes a free one")
    reverb_server_workers: int | None = Field(
        None, ge=1, le=1_024, description="Worker processes of `smartlink reverb start`; one per core when unset"
    )
    reverb_server_hostname: str | None = Field(
        None, description="Name under which clients reach the server; with TLS, the certificate must be for it"
    )
    reverb_server_unix_socket: str | None = Field(None, description="Path of a Unix socket to listen on, too")
    reverb_server_unix_socket_mode: int = Field(0o660, description="Its permissions, in octal digits")
    reverb_server_trusted_proxies: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Proxies whose X-Forwarded-For is believed: addresses, networks, or unix; comma-separated"
    )
    reverb_server_connects_per_second: int | None = Field(
        None, ge=1, description="WebSockets that one address may open a second, at each worker; unlimited when unset"
    )
    reverb_server_runtime_dir: str | None = Field(None, description="Where the control socket of `restart` is kept")
    reverb_server_path: str = Field("", description="Path prefix in front of /app and /apps")
    reverb_max_request_size: int = Field(262_144, ge=1, description="Largest body of an HTTP API call")
    reverb_server_tls_cert: str | None = Field(None, description="Certificate chain (PEM) to serve TLS with")
    reverb_server_tls_key: str | None = Field(None, description="Private key (PEM) of the certificate")
    reverb_server_backlog: int = Field(4_096, ge=1, description="Connections the kernel may hold before accept")
    reverb_server_connections_per_address: int | None = Field(
        None,
        ge=1,
        description="Clients of an app at one address, at each worker; when unset 250 at public ones",
    )
    reverb_server_max_http_connections: int = Field(
        8_192, ge=1, description="Connections without a signed call and no WebSocket yet, at each worker"
    )
    reverb_server_max_backlog_bytes: int = Field(
        1_048_576, ge=65_536, description="Bytes a slow connection may have waiting before it is cut with 4100"
    )
    reverb_server_cache_bytes: int = Field(
        33_554_432, ge=65_536, description="Bytes that the kept events of one application's cache channels may take"
    )
    reverb_server_receipt_bytes: int = Field(
        67_108_864, ge=65_536, description="Bytes that may be taken to recognise one application's repeated events"
    )
    reverb_server_drain_seconds: float = Field(5.0, ge=0, le=300, description="Over how long a stop closes connections")

    # What operators see
    reverb_metrics_enabled: bool = Field(False, description="Serve /metrics, /healthz and /readyz on a port of its own")
    reverb_metrics_host: str = Field("127.0.0.1", description="Address of that port")
    reverb_metrics_port: int = Field(9_601, ge=0, le=65_535, description="That port; 0 takes a free one")

    # The applications, where there are several
    reverb_apps_file: Path | None = Field(None, description="File (TOML) that describes the applications served")
    reverb_apps_database_url: str | None = Field(
        None, description="Database whose table realtime_apps holds the applications served"
    )
    reverb_apps_poll_seconds: float = Field(
        5.0, ge=0.1, le=3_600, description="How often the table of applications is read"
    )

    # The application, where there is one
    reverb_app_id: str = Field("1001", min_length=1, max_length=64, description="Application id, in HTTP API paths")
    reverb_app_key: str = Field("app-key", min_length=1, max_length=128, description="Public key, in browsers")
    reverb_app_secret: str = Field("app-secret", min_length=1, description="Secret that signs; never in a browser")
    reverb_app_max_connections: int = Field(1_000, ge=1, description="Connections the application may have")
    reverb_app_max_message_size: int = Field(10_240, ge=1, description="Largest frame a client may send")
    reverb_app_max_event_size: int = Field(10_240, ge=1, description="Largest `data` a publisher may send, as UTF-8")
    reverb_app_max_channel_name_length: int = Field(
        200, ge=1, le=200, description="Characters a channel's name may have"
    )
    reverb_app_max_event_name_length: int = Field(200, ge=1, le=200, description="Characters an event's name may have")
    reverb_app_ping_interval: int = Field(15, ge=1, le=3_600, description="Silence after which a connection is pinged")
    reverb_app_activity_timeout: int = Field(30, ge=1, le=3_600, description="Silence after which clients ping")
    reverb_app_accept_client_events_from: Literal["all", "members", "none"] = Field(
        "members",
        description="Where clients may send events: members of private and presence channels, all: on public ones too; "
        "the sender must be subscribed in any case",
    )
    reverb_app_client_events_per_second: int = Field(10, ge=1, description="Client events a connection may send")
    reverb_app_presence_joins_per_second: int = Field(
        10, ge=1, description="Joins of presence channels by a connection; ten times as many at once"
    )
    reverb_app_max_channels: int = Field(1_000, ge=1, description="Channels a connection may be on")
    reverb_app_rate_limiting_enabled: bool = Field(False, description="Limit all messages of a connection")
    reverb_app_rate_limit_max_attempts: int = Field(60, ge=1, description="Messages per decay time")
    reverb_app_rate_limit_decay_seconds: int = Field(60, ge=1, description="The decay time")
    reverb_app_rate_limit_terminate: bool = Field(False, description="End the connection that goes over the limit")
    reverb_app_allowed_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        ("*",),
        description="Who may connect: scheme://host:port is that origin, a bare host any origin of it, *.host those "
        "below it; comma-separated; * for any",
    )
    reverb_app_max_connections_per_user: int | None = Field(
        None, ge=1, description="Connections one signed-in user may have"
    )
    reverb_app_authorization_timeout: int | None = Field(
        None, ge=1, le=3_600, description="By when a connection must have signed in or joined a channel not public"
    )
    reverb_app_max_presence_members: int | None = Field(None, ge=1, description="Users a presence channel may have")
    reverb_app_max_user_info_size: int = Field(
        1_024, ge=2, le=1_048_576, description="Largest user_info of a presence member, as JSON"
    )
    reverb_app_max_event_channels: int = Field(100, ge=1, le=10_000, description="Channels one event may go to")
    reverb_app_max_batch: int = Field(10, ge=1, le=1_000, description="Events a batch may have")
    reverb_app_publishes_per_second: int | None = Field(
        None, ge=1, description="Events that may be published a second, counted per channel"
    )
    reverb_app_reads_per_second: int | None = Field(None, ge=1, description="Other HTTP API calls a second")
    reverb_app_cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Origins whose pages may call the HTTP API, comma-separated; * for any"
    )
    reverb_app_list_counts: bool = Field(
        False, description="GET channels and channel tell counts unasked, as Soketi does"
    )
    reverb_app_subscription_counts: bool = Field(False, description="Tell subscribers how many there are")
    reverb_app_cache_ttl: int = Field(1_800, ge=1, le=604_800, description="How long a cache channel keeps its event")

    # Several nodes
    reverb_scaling_enabled: bool = Field(False, description="Share channels with other nodes, over Redis")
    reverb_scaling_channel: str = Field(
        "reverb",
        pattern=r"\A[-A-Za-z0-9_.:]{1,64}\z",
        description="Beginning of all names in Redis; nodes with the same one belong together",
    )
    redis_url: SecretStr | None = Field(None, description="Where Redis is; else its parts")
    redis_host: str = Field("127.0.0.1", description="Redis' host")
    redis_port: int = Field(6379, ge=1, le=65_535, description="Redis' port")
    redis_username: str | None = Field(None, description="Whom Redis knows this server as")
    redis_password: SecretStr | None = Field(None, description="The password that goes with it")
    redis_db: int = Field(0, ge=0, le=65_535, description="Number of the database in Redis")
    redis_cluster: bool = Field(False, description="Redis is a Cluster")
    redis_sentinels: str = Field("", description="Sentinels that know the master, host:port, comma-separated")
    redis_sentinel_service: str = Field("mymaster", min_length=1, description="What the Sentinels call it")
    redis_sentinel_password: SecretStr | None = Field(None, description="Password of the Sentinels themselves")
    redis_ca_file: str | None = Field(None, description="Certificates (PEM) to trust with rediss://")
    broadcast_driver: str = Field(
        "reverb",
        validation_alias=AliasChoices("BROADCAST_DRIVER", "BROADCAST_CONNECTION", "broadcast_driver"),
        description="How the application sends its events",
    )
    broadcast_redis_prefix: str = Field("", max_length=200, description="Stands before channel names on Redis")
    reverb_redis_ingest: bool | None = Field(
        None, description="Deliver events that the redis driver publishes; on with BROADCAST_DRIVER=redis when unset"
    )

    # Webhooks
    reverb_webhook_url: str | None = Field(None, description="Where channel and member events are posted")
    reverb_webhook_events: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Names of the events to post, comma-separated; all when empty"
    )
    reverb_webhook_channel_prefixes: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Beginnings of the channels to post about, comma-separated; all when empty"
    )
    reverb_webhook_grace: float = Field(
        3.0, ge=0, le=60, description="How long a leave waits for a return before its webhook"
    )
    reverb_webhook_restart_grace: float = Field(
        20.0, ge=0, le=300, description="How long after a start the clients of before have to come back"
    )
    reverb_webhook_cache_miss_seconds: float = Field(
        10.0, ge=0, le=300, description="At most one cache_miss per channel in this time"
    )
    reverb_webhook_timeout: float = Field(5.0, gt=0, le=60, description="How long a post may take")
    reverb_webhook_retry_seconds: float = Field(
        300.0,
        ge=0,
        le=86_400,
        description="How long a failing address is tried before its events are kept as failed",
    )
    reverb_webhook_queue: str | None = Field(
        None,
        description="Where webhooks wait: memory, sqlite:///path, redis (the nodes' own) or an address as in REDIS_URL",
    )
    reverb_webhook_allow_private: bool = Field(False, description="Let webhooks go to addresses inside, plainly too")
    reverb_webhook_allow_http: bool = Field(False, description="Let webhooks go without TLS")
    reverb_webhook_allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Hosts (host or host:port) inside that webhooks may go to, comma-separated"
    )

    @field_validator(
        "reverb_app_allowed_origins",
        "reverb_app_cors_origins",
        "reverb_webhook_events",
        "reverb_webhook_channel_prefixes",
        "reverb_webhook_allowed_hosts",
        "reverb_server_trusted_proxies",
        mode="before",
    )
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("reverb_app_id", "reverb_app_key")
    @classmethod
    def _name(cls, value: str) -> str:
        if (fault := fault_of_name(value)) is not None:
            raise ValueError(fault)
        return value

    @field_validator("reverb_app_allowed_origins", "reverb_app_cors_origins", "reverb_webhook_events")
    @classmethod
    def _forms(cls, values: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        fault_of = {
            "reverb_app_allowed_origins": fault_of_allowed_origin,
            "reverb_app_cors_origins": fault_of_origin,
            "reverb_webhook_events": fault_of_event,
        }[info.field_name or ""]
        for value in values:
            if (fault := fault_of(value)) is not None:
                raise ValueError(fault)
        return values

    @field_validator("reverb_webhook_queue")
    @classmethod
    def _queue(cls, value: str | None) -> str | None:
        if value in (None, "memory", "redis") or (value.startswith("sqlite:///") and len(value) > len("sqlite:///")):
            return value
        try:
            parse_url(value)
        except BadAddress:
            raise ValueError("must be memory, sqlite:///path, redis, or redis://host:port/number") from None
        return value

    @field_validator("reverb_webhook_url")
    @classmethod
    def _webhook(cls, value: str | None) -> str | None:
        if value is not None and not is_webhook_url(value):
            raise ValueError("must be http(s)://host/…, without a user name")
        return value

    @field_validator("reverb_server_trusted_proxies")
    @classmethod
    def _proxies(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if name != "unix":
                ipaddress.ip_network(name, strict=False)
        return value

    @field_validator("reverb_server_unix_socket_mode", mode="before")
    @classmethod
    def _mode(cls, value: object) -> object:
        if isinstance(value, str):
            try:
                value = int(value, 8)
            except ValueError:
                raise ValueError("write it in octal digits, as in 660") from None
        if not isinstance(value, int) or not 0 <= value <= 0o777:
            raise ValueError("permissions are 000 to 777")
        return value

    @field_validator("redis_username", "redis_password", mode="before")
    @classmethod
    def _none(cls, value: object) -> object:
        # What stands in a Laravel application's .env until somebody sets a password.
        return None if value == "null" else value

    @field_validator("reverb_server_path")
    @classmethod
    def _path(cls, value: str) -> str:
        value = value.strip("/")
        return f"/{value}" if value else ""

    @property
    def has_own_app(self) -> bool:
        """Whether the application of `REVERB_APP_*` is the one that is served."""
        return self.reverb_apps_file is None and self.reverb_apps_database_url is None

    @property
    def reads_events_from_redis(self) -> bool:
        """Whether what the `redis` broadcast driver publishes is delivered."""
        return self.broadcast_driver == "redis" if self.reverb_redis_ingest is None else self.reverb_redis_ingest

    @property
    def webhook_queue(self) -> str:
        """`REVERB_WEBHOOK_QUEUE`, or what suits the number of nodes."""
        default = "redis" if self.reverb_scaling_enabled else "sqlite:///var/webhooks.db"
        return self.reverb_webhook_queue or default

    @property
    def redis_address(self) -> RedisAddress:
        """Where Redis is. Raises UnsafeSettings that names what is wrong."""
        sentinel_password = _revealed(self.redis_sentinel_password)
        try:
            if self.redis_url is not None:
                address = parse_url(
                    self.redis_url.get_secret_value(),
                    ca_file=self.redis_ca_file,
                    sentinel_password=sentinel_password,
                )
                if self.redis_cluster and address.kind is Kind.SINGLE:
                    if address.database:
                        raise BadAddress("A Redis Cluster has database 0 only: leave the database out of REDIS_URL.")
                    address = replace(address, kind=Kind.CLUSTER)
                return address
            if self.redis_cluster and self.redis_sentinels:
                raise BadAddress("Set REDIS_CLUSTER or REDIS_SENTINELS, not both: a Cluster fails over by itself.")
            if self.redis_cluster and self.redis_db:
                raise BadAddress("A Redis Cluster has database 0 only: unset REDIS_DB.")
            kind = Kind.CLUSTER if self.redis_cluster else Kind.SENTINEL if self.redis_sentinels else Kind.SINGLE
            return RedisAddress(
                hosts=(
                    parse_hosts(self.redis_sentinels, "REDIS_SENTINELS", 26_379)
                    if kind is Kind.SENTINEL
                    else ((self.redis_host, self.redis_port),)
                ),
                kind=kind,
                username=self.redis_username,
                password=_revealed(self.redis_password),
                database=self.redis_db,
                ca_file=self.redis_ca_file,
                service=self.redis_sentinel_service,
                sentinel_password=sentinel_password,
            )
        except BadAddress as error:
            raise UnsafeSettings(str(error)) from None

    def check_start(self) -> None:
        """Refuse to be reachable with a secret that others know. Raises UnsafeSettings."""
        if (self.reverb_server_tls_cert is None) != (self.reverb_server_tls_key is None):
            raise UnsafeSettings("Set both REVERB_SERVER_TLS_CERT and REVERB_SERVER_TLS_KEY, or neither.")
        if self.reverb_apps_file is not None and self.reverb_apps_database_url is not None:
            raise UnsafeSettings("Set REVERB_APPS_FILE or REVERB_APPS_DATABASE_URL, not both.")
        if self.reverb_scaling_enabled and (queue := self.webhook_queue.partition(":")[0]) in ("sqlite", "memory"):
            raise UnsafeSettings(
                f"REVERB_WEBHOOK_QUEUE={queue} is of one machine alone, and REVERB_SCALING_ENABLED joins several: "
                "who arrives at one and leaves at another would not be told of. Unset it, and webhooks wait in Redis."
            )
        if self.reverb_scaling_enabled or self.reads_events_from_redis or self.webhook_queue == "redis":
            address = self.redis_address
            if self.reads_events_from_redis and address.kind is Kind.CLUSTER:
                raise UnsafeSettings(
                    "The redis broadcast driver's events cannot be read from a Redis Cluster: use "
                    "BROADCAST_DRIVER=reverb, or unset REVERB_REDIS_INGEST."
                )
        if not self.has_own_app:
            return  # The secrets of others are checked when they are read.
        if not is_safe_secret(self.reverb_app_secret, self.reverb_server_host):
            raise UnsafeSettings(
                f"REVERB_APP_SECRET is a sample or shorter than {MIN_SECRET_LENGTH} characters, and "
                f"REVERB_SERVER_HOST={self.reverb_server_host} lets other machines connect. "
                "Run `smartlink reverb install` to write a random secret into .env, or bind to 127.0.0.1."
            )
