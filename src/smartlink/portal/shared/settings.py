"""The portal's settings: environment variables and `.env`, read once, frozen. The environment wins."""

from __future__ import annotations

from typing import Literal
from urllib.parse import quote

from pydantic import AliasChoices, Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from smartlink.broadcasting.config import BroadcastSettings
from smartlink.proxies import TrustedProxies
from smartlink.safety import SAMPLE_SECRETS as SIGNING_SAMPLES
from smartlink.safety import UnsafeSettings, is_loopback

__all__ = ["SAMPLE_SECRETS", "PortalSettings", "UnsafeSettings", "async_url", "check_start", "is_loopback"]

SAMPLE_SECRETS = SIGNING_SAMPLES | {"app-key", "app-id", "secure_password"}
MIN_LENGTHS = {"REVERB_APP_SECRET": 20, "APP_KEY": 32}
"""The minimum for the application's secret is the length of those issued by Reverb and Pusher."""


def _named(field: str, *variables: str) -> AliasChoices:
    return AliasChoices(*variables, field)


class PortalSettings(BaseSettings):
    """The portal's settings. Each field is set by the variable named with it, or by name in the constructor."""

    model_config = SettingsConfigDict(
        frozen=True, extra="ignore", env_file=".env", env_ignore_empty=True, populate_by_name=True
    )

    app_host: str = Field("127.0.0.1", validation_alias=_named("app_host", "APP_HOST"))
    app_port: int = Field(8000, ge=0, le=65_535, validation_alias=_named("app_port", "APP_PORT"))
    app_env: str = Field("local", validation_alias=_named("app_env", "APP_ENV"))
    app_key: SecretStr | None = Field(None, validation_alias=_named("app_key", "APP_KEY"))
    app_url: str | None = Field(None, validation_alias=_named("app_url", "APP_URL"))
    """The public address of the pages, behind a proxy. With https, cookies are Secure."""
    asset_url: str = Field("", validation_alias=_named("asset_url", "ASSET_URL"))
    """The address of static files, if a CDN serves them."""
    trusted_proxies: str = Field("", validation_alias=_named("trusted_proxies", "TRUSTED_PROXIES"))
    """Addresses and networks, separated by commas, whose X-Forwarded-For is trusted."""

    app_max_connections: int = Field(
        1_000, ge=8, le=1_000_000, validation_alias=_named("app_max_connections", "APP_MAX_CONNECTIONS")
    )
    """Concurrent HTTP connections; fewer if the process may not open as many descriptors."""
    app_max_connections_per_address: int | None = Field(
        None,
        ge=1,
        le=1_000_000,
        validation_alias=_named("app_max_connections_per_address", "APP_MAX_CONNECTIONS_PER_ADDRESS"),
    )
    """Connections per address, trusted proxies excepted. Unset: 250 for public addresses, no limit for others."""
    app_head_seconds: float = Field(10.0, gt=0, le=300, validation_alias=_named("app_head_seconds", "APP_HEAD_SECONDS"))
    """Time limit for a request's head, and for the first byte on a new connection."""
    app_body_seconds: float = Field(20.0, gt=0, le=300, validation_alias=_named("app_body_seconds", "APP_BODY_SECONDS"))
    """Time limit for a request's body, and for a client that stops reading the response."""

    app_metrics_host: str = Field("127.0.0.1", validation_alias=_named("app_metrics_host", "APP_METRICS_HOST"))
    """Where metrics are served, apart from the pages. They need no credentials."""
    app_metrics_port: int | None = Field(
        None, ge=0, le=65_535, validation_alias=_named("app_metrics_port", "APP_METRICS_PORT")
    )
    """The port for metrics of the API, or of everything in one process. Unset: none."""
    worker_metrics_port: int | None = Field(
        None, ge=0, le=65_535, validation_alias=_named("worker_metrics_port", "WORKER_METRICS_PORT")
    )
    """The port for metrics of a worker. Unset: none."""

    database_url: str | None = Field(None, validation_alias=_named("database_url", "DATABASE_URL"))
    db_connection: str = Field("sqlite", validation_alias=_named("db_connection", "DB_CONNECTION"))
    """`sqlite` or `pgsql`. Others belong to another application: an error only where a database is needed."""
    db_host: str = Field("127.0.0.1", validation_alias=_named("db_host", "DB_HOST"))
    db_port: int = Field(5432, ge=1, le=65_535, validation_alias=_named("db_port", "DB_PORT"))
    db_database: str | None = Field(None, validation_alias=_named("db_database", "DB_DATABASE"))
    """The name of a PostgreSQL database, or a SQLite file."""
    db_pgbouncer: bool = Field(False, validation_alias=_named("db_pgbouncer", "DB_PGBOUNCER"))
    """Whether the address is of a PgBouncer in transaction mode."""
    db_username: str = Field("smartlink", validation_alias=_named("db_username", "DB_USERNAME"))
    db_password: SecretStr = Field(SecretStr(""), validation_alias=_named("db_password", "DB_PASSWORD"))

    reverb_public_host: str | None = Field(
        None,
        validation_alias=_named("reverb_public_host", "REVERB_PUBLIC_HOST", "VITE_REVERB_HOST", "MIX_REVERB_HOST"),
    )
    reverb_public_port: int | None = Field(
        None,
        ge=1,
        le=65_535,
        validation_alias=_named("reverb_public_port", "REVERB_PUBLIC_PORT", "VITE_REVERB_PORT", "MIX_REVERB_PORT"),
    )
    reverb_public_scheme: Literal["http", "https"] | None = Field(
        None,
        validation_alias=_named(
            "reverb_public_scheme", "REVERB_PUBLIC_SCHEME", "VITE_REVERB_SCHEME", "MIX_REVERB_SCHEME"
        ),
    )

    session_days: int = Field(14, ge=1, le=365, validation_alias=_named("session_days", "SESSION_DAYS"))
    broadcast: BroadcastSettings = Field(default_factory=lambda: BroadcastSettings())

    @field_validator("asset_url")
    @classmethod
    def _without_slash(cls, value: str) -> str:
        return value.rstrip("/")

    @field_validator("trusted_proxies")
    @classmethod
    def _proxies(cls, value: str) -> str:
        TrustedProxies(_split(value))
        return value

    @property
    def trusted(self) -> list[str]:
        """The addresses and networks in `trusted_proxies`."""
        return _split(self.trusted_proxies)

    @property
    def url(self) -> str:
        """The database's SQLAlchemy URL, with the driver, and `pgbouncer=true` if configured.

        Raises ValueError when the settings name no database that the portal supports.
        """
        url = self._address()
        if not self.db_pgbouncer or url.startswith("sqlite"):
            return url
        return f"{url}{'&' if '?' in url else '?'}pgbouncer=true"

    def _address(self) -> str:
        if self.database_url:
            return async_url(self.database_url)
        if self.is_database_foreign:
            raise ValueError(
                f"DB_CONNECTION={self.db_connection[:40]}: the portal supports only SQLite and PostgreSQL. If this "
                "setting belongs to another application, keep it and add DATABASE_URL=sqlite:///var/smartlink.db, "
                "or postgresql://…, which takes precedence"
            )
        if self.db_connection == "sqlite":
            return f"sqlite+aiosqlite:///{self.db_database or 'var/smartlink.db'}"
        password = quote(self.db_password.get_secret_value(), safe="")
        who = f"{quote(self.db_username, safe='')}:{password}" if password else quote(self.db_username, safe="")
        return f"postgresql+asyncpg://{who}@{self.db_host}:{self.db_port}/{self.db_database or 'smartlink'}"

    @property
    def is_database_foreign(self) -> bool:
        """Whether the settings name only a database that the portal does not support, such as MySQL."""
        return not self.database_url and self.db_connection not in ("sqlite", "pgsql")

    @property
    def realtime(self) -> dict[str, object]:
        """How browsers reach the realtime server: `key`, `host`, `port`, `scheme`."""
        own = self.broadcast
        host, port, scheme = own.reverb_host, own.reverb_port, own.reverb_scheme
        if own.driver == "pusher":
            host = own.pusher_host or f"ws-{own.pusher_app_cluster}.pusher.com"
            port, scheme = own.pusher_port, own.pusher_scheme
        return {
            "key": own.signing_key()[0],
            "host": self.reverb_public_host or host,
            "port": self.reverb_public_port or port,
            "scheme": self.reverb_public_scheme or scheme,
        }

    @property
    def is_https(self) -> bool:
        """Whether browsers connect over TLS; cookies are Secure then."""
        if self.app_url is not None:
            return self.app_url.startswith("https://")
        return self.reverb_public_scheme == "https"


def _split(listed: str) -> list[str]:
    return [name.strip() for name in listed.split(",") if name.strip()]


def async_url(url: str) -> str:
    """Return `url` with our asynchronous driver. Raises ValueError for an unsupported database."""
    scheme, separator, rest = url.partition("://")
    if scheme in ("postgres", "postgresql", "pgsql") or scheme.startswith("postgresql+"):
        return f"postgresql+asyncpg{separator}{rest}"
    if scheme == "sqlite" or scheme.startswith("sqlite+"):
        return f"sqlite+aiosqlite{separator}{rest}"
    raise ValueError(f"DATABASE_URL: {scheme!r} is not supported; use sqlite:///path/to/file.db or postgresql://…")


def check_start(settings: PortalSettings) -> None:
    """Raise UnsafeSettings if other machines would be served with sample or short secrets."""
    if is_loopback(settings.app_host) and settings.app_env == "local":
        return
    how = 'generate one: python -c "import secrets; print(secrets.token_urlsafe(48))"'
    named = {"REVERB_APP_SECRET": settings.broadcast.reverb_app_secret.get_secret_value()}
    if settings.app_key is not None:
        named["APP_KEY"] = settings.app_key.get_secret_value()
    for name, secret in named.items():
        if secret in SAMPLE_SECRETS or len(secret) < MIN_LENGTHS[name]:
            raise UnsafeSettings(
                f"{name} is a sample or shorter than {MIN_LENGTHS[name]} characters, and APP_HOST="
                f"{settings.app_host}, APP_ENV={settings.app_env} serves other machines; {how}"
            )
    if settings.db_password.get_secret_value() in SAMPLE_SECRETS:
        raise UnsafeSettings(f"DB_PASSWORD is a published sample; {how}")
