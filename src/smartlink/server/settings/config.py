"""Settings of the realtime server: read once from the environment and `.env`, immutable, each documented.

Names and meanings follow Laravel Reverb where it has an equivalent. `REVERB_SERVER_*` configures this process,
`REVERB_APP_*` the application it serves. `check_start` rejects unsafe combinations.
"""

from __future__ import annotations

import ipaddress
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AliasChoices, Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from smartlink.safety import SAMPLE_SECRETS, UnsafeSettings, is_loopback
from smartlink.server.settings.forms import fault_of_allowed_origin, fault_of_event, fault_of_name, fault_of_origin
from smartlink.server.settings.redis_address import BadAddress, Kind, RedisAddress, parse_hosts, parse_url

__all__ = ["SAMPLE_SECRETS", "ServerSettings", "UnsafeSettings", "is_loopback", "is_safe_secret", "is_webhook_url"]

MIN_SECRET_LENGTH = 20
"""The length of Reverb's and Pusher's secrets, so that users who migrate can keep theirs."""


def is_safe_secret(secret: str, host: str) -> bool:
    """Whether an application with this secret may be served on `host`: any secret on loopback, else a long one."""
    return is_loopback(host) or (secret not in SAMPLE_SECRETS and len(secret) >= MIN_SECRET_LENGTH)


def is_webhook_url(url: str) -> bool:
    """Whether `url` has the form of a webhook address."""
    try:
        parts = urlsplit(url)
        has_host = bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and has_host and "@" not in parts.netloc


def _revealed(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()


class ServerSettings(BaseSettings):
    """All settings of the realtime server. Durations in seconds, sizes in bytes."""

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
    reverb_server_port: int = Field(8080, ge=0, le=65_535, description="Port to listen on; 0 picks a free one")
    reverb_server_embedded: bool = Field(True, description="Run in applications that embed the server")
    reverb_server_workers: int | None = Field(
        None, ge=1, le=1_024, description="Worker processes of `smartlink reverb start`; one per core when unset"
    )
    reverb_server_hostname: str | None = Field(
        None, description="Host name that clients use; with TLS, the certificate must cover it"
    )
    reverb_server_unix_socket: str | None = Field(None, description="Path of a Unix socket to listen on as well")
    reverb_server_unix_socket_mode: int = Field(0o660, description="Its permissions, in octal digits")
    reverb_server_trusted_proxies: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Proxies whose X-Forwarded-For is trusted: addresses, networks, or unix; comma-separated"
    )
    reverb_server_connects_per_second: int | None = Field(
        None, ge=1, description="WebSockets that one address may open per second, per worker; unlimited when unset"
    )
    reverb_server_runtime_dir: str | None = Field(None, description="Directory of the control socket for `restart`")
    reverb_server_path: str = Field("", description="Path prefix in front of /app and /apps")
    reverb_max_request_size: int = Field(262_144, ge=1, description="Largest body of an HTTP API call")
    reverb_server_tls_cert: str | None = Field(None, description="Certificate chain (PEM) to serve TLS with")
    reverb_server_tls_key: str | None = Field(None, description="Private key (PEM) of the certificate")
    reverb_server_backlog: int = Field(4_096, ge=1, description="Connections the kernel may queue before accept")
    reverb_server_connections_per_address: int | None = Field(
        None,
        ge=1,
        description="Clients of an app per address and worker; when unset, 250 for public addresses",
    )
    reverb_server_max_http_connections: int = Field(
        8_192, ge=1, description="Connections without a signed call or WebSocket yet, per worker"
    )
    reverb_server_max_backlog_bytes: int = Field(
        1_048_576, ge=65_536, description="Bytes that may be queued for a slow connection before it is closed with 4100"
    )
    reverb_server_cache_bytes: int = Field(
        33_554_432, ge=65_536, description="Memory for the events of one application's cache channels"
    )
    reverb_server_receipt_bytes: int = Field(
        67_108_864, ge=65_536, description="Memory for recognising one application's repeated events"
    )
    reverb_server_session_ttl: int = Field(
        120, ge=1, le=3_600, description="Seconds after its socket ended in which a client's session can be resumed"
    )
    reverb_server_session_bytes: int = Field(
        33_554_432, ge=65_536, description="Memory for what one application's sessions hold"
    )
    reverb_server_history_bytes: int = Field(
        33_554_432, ge=65_536, description="Memory for events that one application's clients may have missed"
    )
    reverb_server_drain_seconds: float = Field(
        5.0, ge=0, le=300, description="Over how long to close connections at a stop"
    )

    # Operators' endpoint
    reverb_metrics_enabled: bool = Field(False, description="Serve /metrics, /healthz and /readyz on a separate port")
    reverb_metrics_host: str = Field("127.0.0.1", description="Address of that port")
    reverb_metrics_port: int = Field(9_601, ge=0, le=65_535, description="That port; 0 picks a free one")
    reverb_operator_token: SecretStr | None = Field(
        None, description="Token for the dashboard and its API on that port; needed unless it is on loopback"
    )
    reverb_operator_app_tokens: SecretStr | None = Field(
        None, description="Tokens of operators of one application each: app id=token, …"
    )

    # Several applications
    reverb_apps_file: Path | None = Field(None, description="TOML file of the applications to serve")
    reverb_apps_database_url: str | None = Field(
        None, description="Database whose table realtime_apps holds the applications to serve"
    )
    reverb_apps_poll_seconds: float = Field(
        5.0, ge=0.1, le=3_600, description="How often the table of applications is read"
    )

    # A single application
    reverb_app_id: str = Field("1001", min_length=1, max_length=64, description="Application id, in HTTP API paths")
    reverb_app_key: str = Field("app-key", min_length=1, max_length=128, description="Public key, in browsers")
    reverb_app_secret: str = Field("app-secret", min_length=1, description="Signing secret; never in a browser")
    reverb_app_max_connections: int = Field(1_000, ge=1, description="Connections the application may have")
    reverb_app_max_message_size: int = Field(10_240, ge=1, description="Largest frame a client may send")
    reverb_app_max_event_size: int = Field(10_240, ge=1, description="Largest `data` a publisher may send, as UTF-8")
    reverb_app_max_channel_name_length: int = Field(
        200, ge=1, le=200, description="Longest channel name, in characters"
    )
    reverb_app_max_event_name_length: int = Field(200, ge=1, le=200, description="Longest event name, in characters")
    reverb_app_ping_interval: int = Field(15, ge=1, le=3_600, description="Silence after which a connection is pinged")
    reverb_app_activity_timeout: int = Field(30, ge=1, le=3_600, description="Silence after which clients ping")
    reverb_app_accept_client_events_from: Literal["all", "members", "none"] = Field(
        "members",
        description="Where clients may send events: members (private and presence channels), all (public ones too) or "
        "none; the sender must be subscribed",
    )
    reverb_app_client_events_per_second: int = Field(10, ge=1, description="Client events per connection")
    reverb_app_presence_joins_per_second: int = Field(
        10, ge=1, description="Presence channel joins per connection; bursts of ten times as many"
    )
    reverb_app_max_channels: int = Field(1_000, ge=1, description="Channels per connection")
    reverb_app_rate_limiting_enabled: bool = Field(False, description="Limit all messages of a connection")
    reverb_app_rate_limit_max_attempts: int = Field(60, ge=1, description="Messages per decay period")
    reverb_app_rate_limit_decay_seconds: int = Field(60, ge=1, description="The decay period")
    reverb_app_rate_limit_terminate: bool = Field(False, description="End the connection that goes over the limit")
    reverb_app_allowed_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        ("*",),
        description="Origins that may connect: scheme://host:port, a host (any of its origins), or *.host (its "
        "subdomains); comma-separated; * for any",
    )
    reverb_app_max_connections_per_user: int | None = Field(None, ge=1, description="Connections per signed-in user")
    reverb_app_authorization_timeout: int | None = Field(
        None, ge=1, le=3_600, description="Time for a connection to sign in or join a non-public channel"
    )
    reverb_app_max_presence_members: int | None = Field(None, ge=1, description="Users per presence channel")
    reverb_app_max_user_info_size: int = Field(
        1_024, ge=2, le=1_048_576, description="Largest user_info of a presence member, as JSON"
    )
    reverb_app_max_event_channels: int = Field(100, ge=1, le=10_000, description="Channels per event")
    reverb_app_max_batch: int = Field(10, ge=1, le=1_000, description="Events per batch")
    reverb_app_publishes_per_second: int | None = Field(
        None, ge=1, description="Events published per second, counted per channel"
    )
    reverb_app_reads_per_second: int | None = Field(None, ge=1, description="Other HTTP API calls per second")
    reverb_app_cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Origins whose pages may call the HTTP API, comma-separated; * for any"
    )
    reverb_app_list_counts: bool = Field(
        False, description="Include counts in GET channels and channel by default, as Soketi does"
    )
    reverb_app_subscription_counts: bool = Field(False, description="Send subscribers the number of subscribers")
    reverb_app_channels: str = Field(
        "[]", description='Policies of channels, as JSON: [{"pattern": "private-prices.*", "history": 200}]'
    )
    reverb_app_cache_ttl: int = Field(1_800, ge=1, le=604_800, description="How long a cache channel keeps its event")

    # Several nodes
    reverb_scaling_enabled: bool = Field(False, description="Share channels with other nodes through Redis")
    reverb_scaling_channel: str = Field(
        "reverb",
        pattern=r"\A[-A-Za-z0-9_.:]{1,64}\z",
        description="Prefix of all names in Redis; nodes with the same one form a cluster",
    )
    redis_url: SecretStr | None = Field(None, description="Address of Redis; or use its parts")
    redis_host: str = Field("127.0.0.1", description="Redis' host")
    redis_port: int = Field(6379, ge=1, le=65_535, description="Redis' port")
    redis_username: str | None = Field(None, description="User name in Redis")
    redis_password: SecretStr | None = Field(None, description="Password in Redis")
    redis_db: int = Field(0, ge=0, le=65_535, description="Redis database number")
    redis_cluster: bool = Field(False, description="Redis is a Cluster")
    redis_sentinels: str = Field("", description="Sentinels that know the master, host:port, comma-separated")
    redis_sentinel_service: str = Field("mymaster", min_length=1, description="Its service name at the Sentinels")
    redis_sentinel_password: SecretStr | None = Field(None, description="Password of the Sentinels themselves")
    redis_ca_file: str | None = Field(None, description="CA certificates (PEM) for rediss://")
    broadcast_driver: str = Field(
        "reverb",
        validation_alias=AliasChoices("BROADCAST_DRIVER", "BROADCAST_CONNECTION", "broadcast_driver"),
        description="How the application sends its events",
    )
    broadcast_redis_prefix: str = Field("", max_length=200, description="Prefix of channel names on Redis")
    reverb_redis_ingest: bool | None = Field(
        None, description="Deliver events that the redis driver publishes; when unset, on with BROADCAST_DRIVER=redis"
    )

    # Webhooks
    reverb_webhook_url: str | None = Field(None, description="URL to post channel and member events to")
    reverb_webhook_events: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Names of the events to post, comma-separated; all when empty"
    )
    reverb_webhook_channel_prefixes: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Channel name prefixes to post events of, comma-separated; all when empty"
    )
    reverb_webhook_grace: float = Field(
        3.0, ge=0, le=60, description="How long a leave may be followed by a return before its webhook is sent"
    )
    reverb_webhook_restart_grace: float = Field(
        20.0, ge=0, le=300, description="How long earlier clients have to return after a start"
    )
    reverb_webhook_cache_miss_seconds: float = Field(
        10.0, ge=0, le=300, description="Period with at most one cache_miss per channel"
    )
    reverb_webhook_timeout: float = Field(5.0, gt=0, le=60, description="Timeout of a post")
    reverb_webhook_retry_seconds: float = Field(
        300.0,
        ge=0,
        le=86_400,
        description="How long to retry a failing address before its events are kept as failed",
    )
    reverb_webhook_queue: str | None = Field(
        None,
        description="Webhook queue: memory, sqlite:///path, redis (the nodes' own) or an address as in REDIS_URL",
    )
    reverb_webhook_allow_private: bool = Field(
        False, description="Allow webhooks to private addresses, with or without TLS"
    )
    reverb_webhook_allow_http: bool = Field(False, description="Allow webhooks without TLS")
    reverb_webhook_allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Private hosts (host or host:port) that webhooks may go to, comma-separated"
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
            raise ValueError("must be http(s)://host/…, without credentials")
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
                raise ValueError("must be octal digits, as in 660") from None
        if not isinstance(value, int) or not 0 <= value <= 0o777:
            raise ValueError("must be 000 to 777")
        return value

    @field_validator("redis_username", "redis_password", mode="before")
    @classmethod
    def _none(cls, value: object) -> object:
        # Laravel's .env has this until a password is set.
        return None if value == "null" else value

    @field_validator("reverb_server_path")
    @classmethod
    def _path(cls, value: str) -> str:
        value = value.strip("/")
        return f"/{value}" if value else ""

    @property
    def has_own_app(self) -> bool:
        """Whether the application of `REVERB_APP_*` is served."""
        return self.reverb_apps_file is None and self.reverb_apps_database_url is None

    @property
    def reads_events_from_redis(self) -> bool:
        """Whether to deliver events published by the `redis` broadcast driver."""
        return self.broadcast_driver == "redis" if self.reverb_redis_ingest is None else self.reverb_redis_ingest

    @property
    def webhook_queue(self) -> str:
        """`REVERB_WEBHOOK_QUEUE`, or the default for this kind of deployment."""
        default = "redis" if self.reverb_scaling_enabled else "sqlite:///var/webhooks.db"
        return self.reverb_webhook_queue or default

    @property
    def redis_address(self) -> RedisAddress:
        """The address of Redis. Raises UnsafeSettings, naming the invalid setting."""
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
                        raise BadAddress("A Redis Cluster has only database 0: remove the database from REDIS_URL.")
                    address = replace(address, kind=Kind.CLUSTER)
                return address
            if self.redis_cluster and self.redis_sentinels:
                raise BadAddress("Set REDIS_CLUSTER or REDIS_SENTINELS, not both: a Cluster handles failover itself.")
            if self.redis_cluster and self.redis_db:
                raise BadAddress("A Redis Cluster has only database 0: unset REDIS_DB.")
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

    @property
    def operator_token(self) -> str | None:
        """The token of operators, or None."""
        return _revealed(self.reverb_operator_token)

    @property
    def operator_app_tokens(self) -> dict[str, str]:
        """The tokens of operators of one application, by app id."""
        text = _revealed(self.reverb_operator_app_tokens) or ""
        pairs = (part.strip().partition("=") for part in text.split(",") if part.strip())
        return {app_id.strip(): token.strip() for app_id, _, token in pairs}

    def check_start(self) -> None:
        """Reject exposing a well-known secret, and conflicting settings. Raises UnsafeSettings."""
        if (self.reverb_server_tls_cert is None) != (self.reverb_server_tls_key is None):
            raise UnsafeSettings("Set both REVERB_SERVER_TLS_CERT and REVERB_SERVER_TLS_KEY, or neither.")
        if self.reverb_apps_file is not None and self.reverb_apps_database_url is not None:
            raise UnsafeSettings("Set REVERB_APPS_FILE or REVERB_APPS_DATABASE_URL, not both.")
        own = () if self.operator_token is None else (self.operator_token,)
        tokens = [*own, *self.operator_app_tokens.values()]
        if any(len(token) < MIN_SECRET_LENGTH for token in tokens) or len(set(tokens)) < len(tokens):
            raise UnsafeSettings(
                f"Tokens in REVERB_OPERATOR_TOKEN and REVERB_OPERATOR_APP_TOKENS (app id=token, …) must differ and "
                f"have {MIN_SECRET_LENGTH} characters or more."
            )
        if self.reverb_scaling_enabled and (queue := self.webhook_queue.partition(":")[0]) in ("sqlite", "memory"):
            raise UnsafeSettings(
                f"REVERB_WEBHOOK_QUEUE={queue} is local to one machine, and REVERB_SCALING_ENABLED joins several: "
                "joins on one node and leaves on another would not match. Unset it to queue webhooks in Redis."
            )
        if self.reverb_scaling_enabled or self.reads_events_from_redis or self.webhook_queue == "redis":
            address = self.redis_address
            if self.reads_events_from_redis and address.kind is Kind.CLUSTER:
                raise UnsafeSettings(
                    "The redis broadcast driver's events cannot be read from a Redis Cluster: use "
                    "BROADCAST_DRIVER=reverb, or unset REVERB_REDIS_INGEST."
                )
        if not self.has_own_app:
            return  # other apps' secrets are checked when they are loaded
        if not is_safe_secret(self.reverb_app_secret, self.reverb_server_host):
            raise UnsafeSettings(
                f"REVERB_APP_SECRET is a sample value or shorter than {MIN_SECRET_LENGTH} characters, and "
                f"REVERB_SERVER_HOST={self.reverb_server_host} accepts connections from other machines. "
                "Run `smartlink reverb install` to write a random secret into .env, or bind to 127.0.0.1."
            )
