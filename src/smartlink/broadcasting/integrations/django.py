"""Django: URL patterns for your `urls.py`, as plain or async views.

urlpatterns = [path("broadcasting/", include(broadcasting_urls(signatory)))]
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from django.core.exceptions import RequestDataTooBig
from django.http import HttpRequest, HttpResponse, HttpResponseBase, RawPostDataException, UnreadablePostError
from django.urls import URLPattern, path
from django.views.decorators.csrf import csrf_exempt

from smartlink.broadcasting.authorizer import (
    MAX_BODY_BYTES,
    AuthRequest,
    AuthResponse,
    ChannelAuthorizer,
    FormBody,
    RequestRefused,
)

__all__ = ["broadcasting_urls", "signed_in_user"]

UserOf = Callable[[HttpRequest], Any]


def signed_in_user(request: HttpRequest) -> Any:
    """The user of Django's own authentication, None for an anonymous one."""
    user = getattr(request, "user", None)
    return user if user is not None and user.is_authenticated else None


async def signed_in_user_async(request: HttpRequest) -> Any:
    """As `signed_in_user`, for async views."""
    auser = getattr(request, "auser", None)
    user = await auser() if auser is not None else None
    return user if user is not None and user.is_authenticated else None


def broadcasting_urls(
    authorizer: ChannelAuthorizer[Any], user_of: UserOf | Mapping[str, UserOf] | None = None, *, is_async: bool = False
) -> list[URLPattern]:
    """`auth` and `user-auth`, for GET and POST.

    `user_of` gives a request's user or None, by default the signed-in one; it may raise `RequestRefused`; a mapping
    makes several guards. With `is_async` the views are async, and so may `user_of` be and every rule. The views are
    exempt from the CSRF check, as Laravel's are: they change nothing, and another site cannot read their answer.
    """
    if user_of is None:
        user_of = signed_in_user_async if is_async else signed_in_user
    guards = user_of if isinstance(user_of, Mapping) else {"default": user_of}

    def view(request: HttpRequest) -> HttpResponseBase:
        return _response(authorizer.answer_sync(_question(request), _bound(guards, request)))

    async def async_view(request: HttpRequest) -> HttpResponseBase:
        return _response(await authorizer.answer(_question(request), _bound(guards, request)))

    chosen: Callable[..., Any] = csrf_exempt(async_view if is_async else view)
    return [path("auth", chosen, name="broadcasting-auth"), path("user-auth", chosen, name="broadcasting-user-auth")]


def _bound(guards: Mapping[str, UserOf], request: HttpRequest) -> dict[str, Callable[[], Any]]:
    return {name: partial(guard, request) for name, guard in guards.items()}


def _question(request: HttpRequest) -> AuthRequest:
    def read() -> bytes:
        try:
            body: bytes = request.body
        except RequestDataTooBig:
            raise RequestRefused(413, f"The body is larger than {MAX_BODY_BYTES} bytes.") from None
        except UnreadablePostError:
            raise RequestRefused(400, "The body broke off.") from None
        except RawPostDataException:
            # A middleware has taken a multipart body apart already; the limits on it are Django's.
            return FormBody(request.POST.urlencode().encode())
        return body

    return AuthRequest(
        method=request.method or "",
        path=request.path,
        read=read,
        content_type=request.META.get("CONTENT_TYPE", ""),
        query=request.META.get("QUERY_STRING", ""),
    )


def _response(answer: AuthResponse) -> HttpResponse:
    response = HttpResponse(answer.body, status=answer.status, content_type="application/json")
    for name, value in answer.all_headers.items():
        if name not in ("connection", "content-type"):
            response[name] = value
    return response
