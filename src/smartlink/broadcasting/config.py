"""The library's settings: environment variables and `.env`, read once, frozen. The environment wins."""

from __future__ import annotations

import re
from difflib import get_close_matches
from inspect import signature
from ipaddress import IPv6Address
from typing import TYPE_CHECKING, Literal, Self
from urllib.parse import quote

from pydantic import AliasChoices, Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from smartlink.broadcasting.errors import BroadcastConfigError

__all__ = [
    "BroadcastSettings", "host_name", "required", "revealed", "split_ably_key",
]  # fmt: skip

_HOST = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,252})\Z")

Scheme = Literal["http", "https"]


def _named(field: str, *variables: str) -> AliasChoices:
    return AliasChoices(*variables, field)


class BroadcastSettings(BaseSettings):
    """Each field is set by the variable named beside it, or by its own name in the constructor.

    The defaults of `reverb_*` are those of the embedded server. Raises pydantic's ValidationError for a value
    that does not fit, and BroadcastConfigError for an argument that is none; what a chosen driver misses is said when
    the driver is built.
    """

    model_config = SettingsConfigDict(
        frozen=True, extra="ignore", env_file=".env", env_ignore_empty=True, populate_by_name=True
    )

    driver: str = Field(default="reverb", validation_alias=_named("driver", "BROADCAST_DRIVER", "BROADCAST_CONNECTION"))
    """`reverb`, `pusher`, `ably`, `redis`, `log`, `null`, or a name given to `DriverManager.extend`."""
    namespace: str = Field(default="App\\Events\\", validation_alias=_named("namespace", "BROADCAST_NAMESPACE"))
    """Stands before event class names on the wire; Echo's `namespace` is the same. `none` for none at all: an
    empty variable counts as unset."""
    max_data_bytes: int = Field(
        default=10_240, gt=0, validation_alias=_named("max_data_bytes", "BROADCAST_MAX_DATA_BYTES")
    )
    """The most bytes of UTF-8 that an event's data may take."""
    timeout_s: float = Field(default=5.0, gt=0, le=60, validation_alias=_named("timeout_s", "BROADCAST_TIMEOUT"))
    """How long one call of the service may take, in seconds, connecting included."""
    connect_timeout_s: float = Field(
        default=3.0, gt=0, le=60, validation_alias=_named("connect_timeout_s", "BROADCAST_CONNECT_TIMEOUT")
    )
    """How long connecting may take, in seconds."""
    encryption_master_key: SecretStr | None = Field(
        default=None, validation_alias=_named("encryption_master_key", "BROADCAST_ENCRYPTION_MASTER_KEY")
    )
    """32 random bytes in base64, for encrypted channels; see `ChannelEncryption`."""
    encryption_master_key_previous: SecretStr | None = Field(
        default=None,
        validation_alias=_named("encryption_master_key_previous", "BROADCAST_ENCRYPTION_MASTER_KEY_PREVIOUS"),
    )
    """Master keys of before, separated by commas."""

    reverb_app_id: str = Field(default="1001", validation_alias=_named("reverb_app_id", "REVERB_APP_ID"))
    reverb_app_key: str = Field(default="app-key", validation_alias=_named("reverb_app_key", "REVERB_APP_KEY"))
    reverb_app_secret: SecretStr = Field(
        default=SecretStr("app-secret"), validation_alias=_named("reverb_app_secret", "REVERB_APP_SECRET")
    )
    reverb_host: str = Field(default="127.0.0.1", validation_alias=_named("reverb_host", "REVERB_HOST"))
    reverb_port: int = Field(default=8080, ge=1, le=65535, validation_alias=_named("reverb_port", "REVERB_PORT"))
    """Where the server is reached; when unset, `reverb_server_port`."""
    reverb_server_port: int | None = Field(
        default=None, ge=0, le=65535, validation_alias=_named("reverb_server_port", "REVERB_SERVER_PORT")
    )
    """Where a server with the same settings listens."""
    reverb_scheme: Scheme = Field(default="http", validation_alias=_named("reverb_scheme", "REVERB_SCHEME"))

    pusher_app_id: str | None = Field(default=None, validation_alias=_named("pusher_app_id", "PUSHER_APP_ID"))
    pusher_app_key: str | None = Field(default=None, validation_alias=_named("pusher_app_key", "PUSHER_APP_KEY"))
    pusher_app_secret: SecretStr | None = Field(
        default=None, validation_alias=_named("pusher_app_secret", "PUSHER_APP_SECRET")
    )
    pusher_host: str | None = Field(default=None, validation_alias=_named("pusher_host", "PUSHER_HOST"))
    """Where given, it stands instead of the cluster's host."""
    pusher_port: int = Field(default=443, ge=1, le=65535, validation_alias=_named("pusher_port", "PUSHER_PORT"))
    pusher_scheme: Scheme = Field(default="https", validation_alias=_named("pusher_scheme", "PUSHER_SCHEME"))
    pusher_app_cluster: str = Field(default="mt1", validation_alias=_named("pusher_app_cluster", "PUSHER_APP_CLUSTER"))

    ably_key: SecretStr | None = Field(default=None, validation_alias=_named("ably_key", "ABLY_KEY"))
    """`appId.keyId:secret`, as Ably's dashboard shows it."""
    ably_host: str = Field(default="rest.ably.io", validation_alias=_named("ably_host", "ABLY_HOST"))

    redis_url: SecretStr | None = Field(default=None, validation_alias=_named("redis_url", "REDIS_URL"))
    """`redis://user:password@host:port/0`, `rediss://` over TLS; where given, it stands instead of the parts."""
    redis_host: str = Field(default="127.0.0.1", validation_alias=_named("redis_host", "REDIS_HOST"))
    redis_port: int = Field(default=6379, ge=1, le=65535, validation_alias=_named("redis_port", "REDIS_PORT"))
    redis_username: str | None = Field(default=None, validation_alias=_named("redis_username", "REDIS_USERNAME"))
    redis_password: SecretStr | None = Field(default=None, validation_alias=_named("redis_password", "REDIS_PASSWORD"))
    redis_prefix: str = Field(default="", validation_alias=_named("redis_prefix", "BROADCAST_REDIS_PREFIX"))
    """Stands before channel names on Redis; the server listens with the same one."""

    if not TYPE_CHECKING:  # What type checkers know of the constructor stays as it is.

        def __init__(self, **values: object) -> None:
            # Unknown variables are others' and are passed over; an unknown argument is a slip that nobody would see.
            for name in values:
                if name not in _arguments(type(self)):
                    near = get_close_matches(name, type(self).model_fields, 1)
                    hint = f"; did you mean {near[0]}?" if near else ""
                    raise BroadcastConfigError(f"BroadcastSettings has no {name}{hint}")
            super().__init__(**values)

    @model_validator(mode="after")
    def _port_of_the_server(self) -> Self:
        if self.reverb_server_port and "reverb_port" not in self.model_fields_set:
            self.__dict__["reverb_port"] = self.reverb_server_port
        return self

    @field_validator("namespace")
    @classmethod
    def _no_namespace(cls, value: str) -> str:
        return "" if value == "none" else value

    @field_validator("redis_username", "redis_password", mode="before")
    @classmethod
    def _none(cls, value: object) -> object:
        # What stands in a Laravel application's .env until somebody sets a password.
        return None if value == "null" else value

    def signing_key(self) -> tuple[str, str]:
        """Key and secret that authorisations are signed with: those of the chosen driver's service.

        The drivers `redis`, `log`, `null` and your own have none; clients are on our server then, and `reverb_*`
        counts. Raises BroadcastConfigError when one is missing.
        """
        if self.driver == "pusher":
            return required("pusher", PUSHER_APP_KEY=self.pusher_app_key), required(
                "pusher", PUSHER_APP_SECRET=revealed(self.pusher_app_secret)
            )
        if self.driver == "ably":
            return split_ably_key(required("ably", ABLY_KEY=revealed(self.ably_key)))
        return required(self.driver, REVERB_APP_KEY=self.reverb_app_key), required(
            self.driver, REVERB_APP_SECRET=revealed(self.reverb_app_secret)
        )

    @property
    def redis_address(self) -> str:
        """The Redis that the `redis` driver publishes to, as a URL, password included."""
        if self.redis_url is not None:
            return self.redis_url.get_secret_value()
        password = revealed(self.redis_password)
        user = quote(self.redis_username or "", safe="")
        who = f"{user}:{quote(password or '', safe='')}@" if user or password else ""
        host = f"[{self.redis_host}]" if ":" in self.redis_host else self.redis_host
        return f"redis://{who}{host}:{self.redis_port}/0"


def _arguments(kind: type[BaseSettings]) -> frozenset[str]:
    """What the constructor takes: fields, their variables, and what pydantic's own settings take."""
    aliases = (field.validation_alias for field in kind.model_fields.values())
    named = (alias.choices for alias in aliases if isinstance(alias, AliasChoices))
    variables = {str(variable) for choices in named for variable in choices}
    return frozenset(kind.model_fields) | frozenset(signature(BaseSettings.__init__).parameters) | variables


def revealed(secret: SecretStr | None) -> str | None:
    """A secret's text."""
    return None if secret is None else secret.get_secret_value()


def required(driver: str, **variables: str | None) -> str:
    """The one value given, by the name of its variable. Raises BroadcastConfigError when it is missing."""
    [(variable, value)] = variables.items()
    if not value:
        raise BroadcastConfigError(f"BROADCAST_DRIVER={driver} needs {variable}; set it in the environment or .env")
    return value


def host_name(driver: str, **variables: str | None) -> str:
    """As `required`, for the name or address of a host. Raises BroadcastConfigError for a URL, and with a port."""
    [variable] = variables
    host = required(driver, **variables).removeprefix("[").removesuffix("]")
    if not _HOST.match(host) and not _is_ipv6(host):
        raise BroadcastConfigError(
            f"{variable}: {host[:80]!r} is not a host; write its name or address alone, such as 127.0.0.1 or "
            "realtime.example.com: scheme and port have settings of their own"
        )
    return host


def _is_ipv6(host: str) -> bool:
    try:
        IPv6Address(host)
    except ValueError:
        return False
    return True


def split_ably_key(key: str) -> tuple[str, str]:
    """The public and the secret part of an Ably key. Raises BroadcastConfigError."""
    name, colon, secret = key.partition(":")
    if not colon or not secret or not name.partition(".")[2]:
        raise BroadcastConfigError("ABLY_KEY has the form appId.keyId:secret; copy all of it from Ably's dashboard")
    return name, secret
