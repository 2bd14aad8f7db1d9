"""`/broadcasting/auth` and `/broadcasting/user-auth`, with a second check of the caller before the answer is sent.

Channel rules take time, and callers are cached for a moment. So the caller is read from the database once more when
the answer is ready: nothing is signed for a user after the transaction that blocked them, demoted them, or revoked
their token or session. Older sockets are left to the realtime server, which ends them and refuses older signatures.
"""

from __future__ import annotations

import msgspec

from smartlink.broadcasting import BroadcastingAuth, ChannelAuthorizer, RequestRefused
from smartlink.broadcasting.authorizer import AuthResponse
from smartlink.broadcasting.routes import respond
from smartlink.broadcasting.socket_id import Message, Receive, Scope, Send
from smartlink.portal.shared.errors import Forbidden, PortalError, Unauthenticated
from smartlink.portal.shared.limits import RateLimits
from smartlink.portal.users.identity import Identity
from smartlink.portal.users.principals import Principal

__all__ = ["Signing"]

_CALLER = "smartlink.caller"


class Signing:
    """The library's endpoints for our users. Tokens need `user:read` to sign in, and what a channel's rule asks for."""

    def __init__(self, authorizer: ChannelAuthorizer[Principal], identity: Identity, limits: RateLimits) -> None:
        self._limits = limits
        self._endpoint = BroadcastingAuth(authorizer, self._caller)
        self._identity = identity

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        held: list[Message] = []

        async def hold(message: Message) -> None:
            held.append(message)

        await self._endpoint(scope, receive, hold)
        if held and held[0].get("status") == 200:
            try:
                await self._confirm(scope)
            except PortalError as error:
                body = msgspec.json.encode({"message": error.message})
                await respond(send, AuthResponse(error.status, body, error.headers))
                return
        for message in held:
            await send(message)

    async def _caller(self, scope: Scope) -> Principal | None:
        try:
            caller = await self._identity.caller(scope)
            if caller is not None:
                await self._limits.take("signature", caller.id)
                if scope["path"].endswith("/user-auth"):
                    caller.check("user:read")
        except PortalError as error:
            raise RequestRefused(error.status, error.message, error.headers) from error
        scope[_CALLER] = caller
        return caller

    async def _confirm(self, scope: Scope) -> None:
        """Raise Unauthenticated if the caller is no longer signed in, Forbidden if no longer an admin."""
        before: Principal = scope[_CALLER]
        now = await self._identity.caller(scope, is_fresh=True)
        if now is None:
            raise Unauthenticated
        if before.is_admin and not now.is_admin:
            raise Forbidden
