"""The library's settings, from environment variables and `.env`: read once and frozen. The environment wins."""

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
    """The settings. Set a field by its variable in the environment, or by its name in the constructor.

    The defaults of `reverb_*` match the embedded server. Raises pydantic's ValidationError for an invalid value, and
    BroadcastConfigError for an unknown argument. Settings that a driver needs are checked when it is built.
    """

    model_config = SettingsConfigDict(
        frozen=True, extra="ignore", env_file=".env", env_ignore_empty=True, populate_by_name=True
    )

    driver: str = Field(default="reverb", validation_alias=_named("driver", "BROADCAST_DRIVER", "BROADCAST_CONNECTION"))
    """`reverb`, `pusher`, `ably`, `redis`, `log`, `null`, or a name given to `DriverManager.extend`."""
    namespace: str = Field(default="App\\Events\\", validation_alias=_named("namespace", "BROADCAST_NAMESPACE"))
    """Prepended to event class names on the wire; set Echo's `namespace` to the same. Write `none` for no namespace:
    an empty variable counts as unset."""
    max_data_bytes: int = Field(
        default=10_240, gt=0, validation_alias=_named("max_data_bytes", "BROADCAST_MAX_DATA_BYTES")
    )
    """The maximum size of an event's data, in bytes of UTF-8."""
    timeout_s: float = Field(default=5.0, gt=0, le=60, validation_alias=_named("timeout_s", "BROADCAST_TIMEOUT"))
    """The time limit for one call to the service, in seconds, connecting included."""
    connect_timeout_s: float = Field(
        default=3.0, gt=0, le=60, validation_alias=_named("connect_timeout_s", "BROADCAST_CONNECT_TIMEOUT")
    )
    """The time limit for connecting, in seconds."""
    encryption_master_key: SecretStr | None = Field(
        default=None, validation_alias=_named("encryption_master_key", "BROADCAST_ENCRYPTION_MASTER_KEY")
    )
    """32 random bytes in base64, for encrypted channels; see `ChannelEncryption`."""
    encryption_master_key_previous: SecretStr | None = Field(
        default=None,
        validation_alias=_named("encryption_master_key_previous", "BROADCAST_ENCRYPTION_MASTER_KEY_PREVIOUS"),
    )
    """Earlier master keys, separated by commas."""

    reverb_app_id: str = Field(default="1001", validation_alias=_named("reverb_app_id", "REVERB_APP_ID"))
    reverb_app_key: str = Field(default="app-key", validation_alias=_named("reverb_app_key", "REVERB_APP_KEY"))
    reverb_app_secret: SecretStr = Field(
        default=SecretStr("app-secret"), validation_alias=_named("reverb_app_secret", "REVERB_APP_SECRET")
    )
    reverb_host: str = Field(default="127.0.0.1", validation_alias=_named("reverb_host", "REVERB_HOST"))
    reverb_port: int = Field(default=8080, ge=1, le=65535, validation_alias=_named("reverb_port", "REVERB_PORT"))
    """The port to connect to; if unset, `reverb_server_port`."""
    reverb_server_port: int | None = Field(
        default=None, ge=0, le=65535, validation_alias=_named("reverb_server_port", "REVERB_SERVER_PORT")
    )
    """The port that a server with the same settings listens on."""
    reverb_server_embedded: bool = Field(
        default=True, validation_alias=_named("reverb_server_embedded", "REVERB_SERVER_EMBEDDED")
    )
    """Whether `Broadcasting(embedded=True)` runs the server; false where it has a process of its own."""
    reverb_scheme: Scheme = Field(default="http", validation_alias=_named("reverb_scheme", "REVERB_SCHEME"))

    pusher_app_id: str | None = Field(default=None, validation_alias=_named("pusher_app_id", "PUSHER_APP_ID"))
    pusher_app_key: str | None = Field(default=None, validation_alias=_named("pusher_app_key", "PUSHER_APP_KEY"))
    pusher_app_secret: SecretStr | None = Field(
        default=None, validation_alias=_named("pusher_app_secret", "PUSHER_APP_SECRET")
    )
    pusher_host: str | None = Field(default=None, validation_alias=_named("pusher_host", "PUSHER_HOST"))
    """Overrides the cluster's host."""
    pusher_port: int = Field(default=443, ge=1, le=65535, validation_alias=_named("pusher_port", "PUSHER_PORT"))
    pusher_scheme: Scheme = Field(default="https", validation_alias=_named("pusher_scheme", "PUSHER_SCHEME"))
    pusher_app_cluster: str = Field(default="mt1", validation_alias=_named("pusher_app_cluster", "PUSHER_APP_CLUSTER"))

    ably_key: SecretStr | None = Field(default=None, validation_alias=_named("ably_key", "ABLY_KEY"))
    """`appId.keyId:secret`, as Ably's dashboard shows it."""
    ably_host: str = Field(default="rest.ably.io", validation_alias=_named("ably_host", "ABLY_HOST"))

    redis_url: SecretStr | None = Field(default=None, validation_alias=_named("redis_url", "REDIS_URL"))
    """`redis://user:password@host:port/0`, `rediss://` for TLS. Overrides host, port, username and password."""
    redis_host: str = Field(default="127.0.0.1", validation_alias=_named("redis_host", "REDIS_HOST"))
    redis_port: int = Field(default=6379, ge=1, le=65535, validation_alias=_named("redis_port", "REDIS_PORT"))
    redis_username: str | None = Field(default=None, validation_alias=_named("redis_username", "REDIS_USERNAME"))
    redis_password: SecretStr | None = Field(default=None, validation_alias=_named("redis_password", "REDIS_PASSWORD"))
    redis_prefix: str = Field(default="", validation_alias=_named("redis_prefix", "BROADCAST_REDIS_PREFIX"))
    """Prepended to channel names on Redis; the server must use the same prefix."""

    if not TYPE_CHECKING:  # so that type checkers keep the constructor's generated signature

        def __init__(self, **values: object) -> None:
            # Unknown variables belong to other programs and are ignored; an unknown argument is a typo.
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
        # Laravel's .env.example has `null` here.
        return None if value == "null" else value

    def signing_key(self) -> tuple[str, str]:
        """Return the key and secret that sign channel authorization: those of the chosen driver's service.

        The drivers `redis`, `log`, `null` and your own have none: their clients connect to our server, so `reverb_*`
        is used. Raises BroadcastConfigError if one is missing.
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
        """The URL of the Redis that the `redis` driver publishes to, including the password."""
        if self.redis_url is not None:
            return self.redis_url.get_secret_value()
        password = revealed(self.redis_password)
        user = quote(self.redis_username or "", safe="")
        who = f"{user}:{quote(password or '', safe='')}@" if user or password else ""
        host = f"[{self.redis_host}]" if ":" in self.redis_host else self.redis_host
        return f"redis://{who}{host}:{self.redis_port}/0"


def _arguments(kind: type[BaseSettings]) -> frozenset[str]:
    """Return the names that the constructor accepts: fields, their variables, and pydantic's own arguments."""
    aliases = (field.validation_alias for field in kind.model_fields.values())
    named = (alias.choices for alias in aliases if isinstance(alias, AliasChoices))
    variables = {str(variable) for choices in named for variable in choices}
    return frozenset(kind.model_fields) | frozenset(signature(BaseSettings.__init__).parameters) | variables


def revealed(secret: SecretStr | None) -> str | None:
    """Return the text of a secret."""
    return None if secret is None else secret.get_secret_value()


def required(driver: str, **variables: str | None) -> str:
    """Return the one value passed, as `VARIABLE=value`. Raises BroadcastConfigError if it is empty."""
    [(variable, value)] = variables.items()
    if not value:
        raise BroadcastConfigError(f"BROADCAST_DRIVER={driver} needs {variable}; set it in the environment or .env")
    return value


def host_name(driver: str, **variables: str | None) -> str:
    """Return a host's name or address, like `required`. Raises BroadcastConfigError for a URL, or with a port."""
    [variable] = variables
    host = required(driver, **variables).removeprefix("[").removesuffix("]")
    if not _HOST.match(host) and not _is_ipv6(host):
        raise BroadcastConfigError(
            f"{variable}: {host[:80]!r} is not a host; give only a name or address, such as 127.0.0.1 or "
            "realtime.example.com: scheme and port have their own settings"
        )
    return host


def _is_ipv6(host: str) -> bool:
    try:
        IPv6Address(host)
    except ValueError:
        return False
    return True


def split_ably_key(key: str) -> tuple[str, str]:
    """Return the public and the secret part of an Ably key. Raises BroadcastConfigError."""
    name, colon, secret = key.partition(":")
    if not colon or not secret or not name.partition(".")[2]:
        raise BroadcastConfigError("ABLY_KEY has the form appId.keyId:secret; copy all of it from Ably's dashboard")
    return name, secret
