"""Authenticates requests: by bearer token, or by the pages' session cookie and CSRF token."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Annotated, Any, cast
from urllib.parse import urlsplit

from fastapi import Request, Response, Security
from fastapi.openapi.models import HTTPBearer as HTTPBearerModel
from fastapi.security import SecurityScopes
from fastapi.security.base import SecurityBase

from smartlink.portal.shared.errors import AnotherAccount, CsrfMismatch, Forbidden, Unauthenticated
from smartlink.portal.shared.limits import RateLimits
from smartlink.portal.shared.security import csrf_token, is_same
from smartlink.portal.users.abilities import Ability
from smartlink.portal.users.service import Principal, Users

__all__ = ["AnyCaller", "AnyChange", "Identity", "SignedInScheme", "able", "identity_of"]

SESSION_COOKIE, CSRF_COOKIE = "smartlink_session", "XSRF-TOKEN"
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})

Scope = MutableMapping[str, Any]


class Identity:
    """Identifies the user who sent a request."""

    def __init__(self, users: Users, *, app_url: str | None, is_https: bool, session_s: int) -> None:
        self._users = users
        self._own_host = urlsplit(app_url).netloc.lower() if app_url else None
        self._is_https = is_https
        self._session_s = session_s

    async def caller(self, scope: Scope, *, is_fresh: bool = False) -> Principal | None:
        """Return the user a request comes from, or None.

        A bearer token is enough by itself. Browsers send cookies with requests from any site, so an unsafe request
        with one must also have the CSRF token, which only our own pages can read. All tabs of a browser share one
        cookie, so pages name the account they show in `X-Account`, to not act for another one. `is_fresh` bypasses
        the cache. Raises AnotherAccount, CsrfMismatch, Forbidden and DatabaseAway.
        """
        headers = _headers(scope)
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and token.strip():
            return await self._users.by_token(token.strip(), is_fresh=is_fresh)
        cookie = session_cookie(headers)
        if cookie is None:
            return None
        principal = await self._users.by_session(cookie, is_fresh=is_fresh)
        if principal is None:
            return None
        is_unsafe = scope["method"] not in SAFE_METHODS
        if is_unsafe:
            self.check_origin(scope)
        # Checked before the CSRF token, which pages read for each request, so that it always fits the session.
        if headers.get("x-account", str(principal.id)) != str(principal.id):
            raise AnotherAccount(principal.id)
        if is_unsafe and not is_same(csrf_token(cookie), headers.get("x-xsrf-token", "")):
            raise CsrfMismatch
        return principal

    def check_origin(self, scope: Scope) -> None:
        """Raise Forbidden if the Origin header names another site."""
        headers = _headers(scope)
        origin = headers.get("origin")
        if origin is None:
            return
        try:
            from_host = urlsplit(origin).netloc.lower()
        except ValueError:
            from_host = ""
        if not from_host or from_host not in (headers.get("host", "").lower(), self._own_host):
            raise Forbidden("This origin is not allowed.")

    def remember(self, response: Response, cookie: str) -> None:
        """Set the cookies of the session and the CSRF token."""
        response.set_cookie(
            SESSION_COOKIE,
            cookie,
            max_age=self._session_s,
            path="/",
            secure=self._is_https,
            httponly=True,
            samesite="lax",
        )
        response.set_cookie(
            CSRF_COOKIE,
            csrf_token(cookie),
            max_age=self._session_s,
            path="/",
            secure=self._is_https,
            httponly=False,
            samesite="lax",
        )

    def forget(self, response: Response) -> None:
        """Delete both cookies."""
        response.delete_cookie(SESSION_COOKIE, path="/", secure=self._is_https, httponly=True, samesite="lax")
        response.delete_cookie(CSRF_COOKIE, path="/", secure=self._is_https, samesite="lax")


def session_cookie(headers: Mapping[str, str]) -> str | None:
    """Return the value of the session cookie, or None."""
    sent = headers.get("cookie")
    if not sent or SESSION_COOKIE not in sent:
        return None
    for part in sent.split(";"):
        name, _, value = part.strip().partition("=")
        if name == SESSION_COOKIE:
            try:
                jar: SimpleCookie = SimpleCookie(f"{name}={value}")
            except CookieError:
                return None
            morsel = jar.get(SESSION_COOKIE)
            return morsel.value if morsel is not None and morsel.value else None
    return None


def _headers(scope: Scope) -> dict[str, str]:
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}


def identity_of(request: Request) -> Identity:
    """Return the app's Identity; a dependency."""
    identity: Identity = request.app.state.identity
    return identity


class SignedInScheme(SecurityBase):
    """A dependency that returns the caller. Raises Unauthenticated, and Forbidden if the token lacks an ability.

    Abilities are FastAPI's scopes, which it lists in the API's description. With `limit`, one of `LIMITS`, it also
    raises TooMany.
    """

    model = HTTPBearerModel()
    scheme_name = "bearer"

    def __init__(self, limit: str | None = None) -> None:
        self._limit = limit

    async def __call__(self, request: Request, needed: SecurityScopes) -> Principal:
        principal = await identity_of(request).caller(request.scope)
        if principal is None:
            raise Unauthenticated
        principal.check(*cast("list[Ability]", needed.scopes))
        if self._limit is not None:
            limits: RateLimits = request.app.state.limits
            await limits.take(self._limit, principal.id)
        return principal


def able(*abilities: Ability, limit: str | None = None) -> Any:
    """Return the annotation of an endpoint's caller: `Annotated[Principal, able("wallet:read")]`.

    The endpoint answers 401 without a caller, 403 without the abilities, and 429 beyond the limit.
    """
    return Security(SignedInScheme(limit), scopes=abilities)


AnyCaller = Annotated[Principal, able()]
"""The signed-in user, regardless of abilities; 401 without one."""
AnyChange = Annotated[Principal, able(limit="change")]
"""The same, for a request that changes something and has no rate limit of its own."""
