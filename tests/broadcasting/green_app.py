"""A plain WSGI application, and a Celery task where there is Celery, that broadcast: what green workers run."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable
from typing import Any

from smartlink.broadcasting import BroadcastSettings, Channel, SyncBroadcaster

broadcaster = SyncBroadcaster.from_settings(
    BroadcastSettings(
        _env_file=None,
        reverb_app_id="77",
        reverb_app_key="a-key",
        reverb_app_secret="a-secret",
        reverb_host="localhost",
        reverb_port=int(os.environ["SERVICE_PORT"]),
        reverb_scheme="http",
        timeout_s=60,
    )
)


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    send(environ["PATH_INFO"])
    start_response("200 OK", [("content-type", "text/plain"), ("content-length", "4")])
    return [b"sent"]


def send(path: str) -> None:
    broadcaster.on(Channel("news")).as_("seen").with_({"path": path}).send()


with contextlib.suppress(ImportError):
    from celery import Celery

    folder = os.environ.get("CELERY_FOLDER", "/nowhere")
    celery = Celery("green_app", broker="filesystem://")
    celery.conf.broker_transport_options = {f"data_folder_{way}": folder for way in ("in", "out")} | {
        "control_folder": f"{folder}/control"
    }
    task = celery.task(name="send")(send)
