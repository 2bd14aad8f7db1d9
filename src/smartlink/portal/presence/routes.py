"""The webhook endpoint for the realtime server's events."""

from __future__ import annotations

from fastapi import Request

from smartlink.broadcasting.webhooks import WebhookReceiver, WebhookRefused
from smartlink.portal.presence.service import Presence, member_events
from smartlink.portal.shared.answers import raises
from smartlink.portal.shared.errors import Invalid, Unauthenticated
from smartlink.portal.shared.routing import feature_router
from smartlink.portal.shared.schemas import Status
from smartlink.portal.shared.settings import PortalSettings

__all__ = ["router"]

router = feature_router(tags=["realtime"])

MAX_AGE_S = 600.0
"""Twice as long as the realtime server retries. Intercepted webhooks cannot be replayed after that."""

_SIGNED = {
    "security": [{"signature": []}],
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "time_ms": {"type": "integer"},
                        "events": {"type": "array", "items": {"type": "object"}},
                    },
                    "required": ["time_ms", "events"],
                },
                "example": {
                    "time_ms": 1769860800000,
                    "events": [{"name": "member_added", "channel": "presence-chat", "user_id": "7"}],
                },
            }
        },
    },
}


@router.post("/webhooks/realtime", responses=raises(Unauthenticated, Invalid), openapi_extra=_SIGNED)
async def realtime_webhook(request: Request) -> Status:
    """Receive a signed batch of the realtime server's events: who came and left, and what was delivered.

    Batches older than ten minutes are refused with 422. Repeated and outdated batches change nothing.
    """
    settings: PortalSettings = request.app.state.settings
    presence: Presence = request.app.state.presence
    own = settings.broadcast
    secrets = {own.reverb_app_key: own.reverb_app_secret.get_secret_value()}
    receiver = WebhookReceiver(secrets, max_age_s=MAX_AGE_S)
    sent = request.headers
    body = await request.body()
    try:
        webhook = receiver.receive(body, key=sent.get("x-pusher-key", ""), signature=sent.get("x-pusher-signature", ""))
    except WebhookRefused as refused:
        if refused.status == 401:
            raise Unauthenticated(refused.message) from None
        raise Invalid({"body": [refused.message]}) from None
    await presence.apply(member_events(webhook.events), webhook.time_ms)
    for apply in request.app.state.webhook_handlers:
        await apply(webhook.events)
    for listener in request.app.state.webhook_listeners:
        listener(webhook.events)
    return Status()
