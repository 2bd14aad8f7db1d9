"""Where the realtime server tells who came and went."""

from __future__ import annotations

from fastapi import APIRouter, Request

from smartlink.broadcasting.webhooks import WebhookReceiver, WebhookRefused
from smartlink.portal.presence.service import Presence, member_events
from smartlink.portal.shared.errors import Invalid, Unauthenticated
from smartlink.portal.shared.settings import PortalSettings

__all__ = ["router"]

router = APIRouter(tags=["realtime"])


@router.post("/webhooks/realtime", include_in_schema=False)
async def realtime_webhook(request: Request) -> dict[str, str]:
    """A signed batch of the realtime server's events, applied in one transaction."""
    settings: PortalSettings = request.app.state.settings
    presence: Presence = request.app.state.presence
    own = settings.broadcast
    receiver = WebhookReceiver({own.reverb_app_key: own.reverb_app_secret.get_secret_value()})
    sent = request.headers
    body = await request.body()
    try:
        webhook = receiver.receive(body, key=sent.get("x-pusher-key", ""), signature=sent.get("x-pusher-signature", ""))
    except WebhookRefused as refused:
        if refused.status == 401:
            raise Unauthenticated(refused.message) from None
        raise Invalid({"body": [refused.message]}) from None
    await presence.hear(member_events(webhook.events))
    for listener in request.app.state.webhook_listeners:
        listener(webhook.events)
    return {"status": "ok"}
