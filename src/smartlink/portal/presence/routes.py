"""Where the realtime server tells who came and went."""

from __future__ import annotations

import msgspec
from fastapi import APIRouter, Request

from smartlink.portal.presence.service import Presence, member_events
from smartlink.portal.shared.errors import Invalid, Unauthenticated
from smartlink.portal.shared.settings import PortalSettings
from smartlink.protocol.signing import verify_webhook

__all__ = ["router"]

router = APIRouter(tags=["realtime"])


@router.post("/webhooks/realtime", include_in_schema=False)
async def realtime_webhook(request: Request) -> dict[str, str]:
    """A signed batch of the realtime server's events. The signature is looked at before anything else."""
    settings: PortalSettings = request.app.state.settings
    presence: Presence = request.app.state.presence
    body = await request.body()
    known = request.headers.get("x-pusher-key") == settings.broadcast.reverb_app_key
    secret = settings.broadcast.reverb_app_secret.get_secret_value()
    if not verify_webhook(secret, body, request.headers.get("x-pusher-signature", "")) or not known:
        raise Unauthenticated("The webhook's signature does not match.")
    try:
        told = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Invalid({"body": ["The body is not JSON."]}) from None
    events = told.get("events") if isinstance(told, dict) else None
    if not isinstance(events, list):
        raise Invalid({"events": ["The events field must be a list."]})
    await presence.hear(member_events(events))
    return {"status": "ok"}
