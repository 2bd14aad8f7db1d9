"""The library's settings: environment variables and `.env`, read once, frozen. The environment wins."""

from __future__ import annotations

from typing import Literal

from pydantic import AliasChoices, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

__all__ = ["BroadcastSettings"]

Scheme = Literal["http", "https"]


def _named(field: str, *variables: str) -> AliasChoices:
    return AliasChoices(*variables, field)


class BroadcastSettings(BaseSettings):
    """Each field is set by the variable named beside it, or by its own name in the constructor.

    The defaults of `reverb_*` are those of the embedded server. Raises pydantic's ValidationError for a value
    that does not fit; what a chosen driver misses is said when the driver is built.
    """

    model_config = SettingsConfigDict(
        frozen=True, extra="ignore", env_file=".env", env_ignore_empty=True, populate_by_name=True
    )

    driver: str = Field("reverb", validation_alias=_named("driver", "BROADCAST_DRIVER", "BROADCAST_CONNECTION"))
    """`reverb`, `pusher`, `log`, `null`, or a name given to `DriverManager.extend`."""
    namespace: str = Field("App\\Events\\", validation_alias=_named("namespace", "BROADCAST_NAMESPACE"))
    """Stands before event class names on the wire; Echo's `namespace` is the same."""
    max_data_bytes: int = Field(10_240, gt=0, validation_alias=_named("max_data_bytes", "BROADCAST_MAX_DATA_BYTES"))
    """The most bytes of UTF-8 that an event's data may take."""
    timeout_s: float = Field(5.0, gt=0, le=60, validation_alias=_named("timeout_s", "BROADCAST_TIMEOUT"))
    """How long one call of the service may take, in seconds."""

    reverb_app_id: str = Field("1001", validation_alias=_named("reverb_app_id", "REVERB_APP_ID"))
    reverb_app_key: str = Field("app-key", validation_alias=_named("reverb_app_key", "REVERB_APP_KEY"))
    reverb_app_secret: SecretStr = Field(
        SecretStr("app-secret"), validation_alias=_named("reverb_app_secret", "REVERB_APP_SECRET")
    )
    reverb_host: str = Field("127.0.0.1", validation_alias=_named("reverb_host", "REVERB_HOST"))
    reverb_port: int = Field(8080, ge=1, le=65535, validation_alias=_named("reverb_port", "REVERB_PORT"))
    reverb_scheme: Scheme = Field("http", validation_alias=_named("reverb_scheme", "REVERB_SCHEME"))

    pusher_app_id: str | None = Field(None, validation_alias=_named("pusher_app_id", "PUSHER_APP_ID"))
    pusher_app_key: str | None = Field(None, validation_alias=_named("pusher_app_key", "PUSHER_APP_KEY"))
    pusher_app_secret: SecretStr | None = Field(None, validation_alias=_named("pusher_app_secret", "PUSHER_APP_SECRET"))
    pusher_host: str | None = Field(None, validation_alias=_named("pusher_host", "PUSHER_HOST"))
    """Where given, it stands instead of the cluster's host."""
    pusher_port: int = Field(443, ge=1, le=65535, validation_alias=_named("pusher_port", "PUSHER_PORT"))
    pusher_scheme: Scheme = Field("https", validation_alias=_named("pusher_scheme", "PUSHER_SCHEME"))
    pusher_app_cluster: str = Field("mt1", validation_alias=_named("pusher_app_cluster", "PUSHER_APP_CLUSTER"))
