"""Django: broadcasting in one object, URL patterns for your `urls.py`, and middleware.

broadcasting = DjangoBroadcasting.from_env()

urlpatterns = [path("broadcasting/", include(broadcasting.urls()))]
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, Self

from django.apps import apps
from django.core import mail
from django.core.exceptions import RequestDataTooBig
from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseBase, RawPostDataException, UnreadablePostError
from django.urls import URLPattern, path
from django.utils.decorators import sync_and_async_middleware
from django.views.decorators.csrf import csrf_exempt

from smartlink.broadcasting.authorization import Member
from smartlink.broadcasting.authorizer import (
    MAX_BODY_BYTES,
    AuthRequest,
    AuthResponse,
    ChannelAuthorizer,
    FormBody,
    RequestRefused,
)
from smartlink.broadcasting.broadcaster import Report
from smartlink.broadcasting.changes import Change, ChangingModel, ModelChanged
from smartlink.broadcasting.config import BroadcastSettings
from smartlink.broadcasting.envelope import Delivery, Envelope
from smartlink.broadcasting.errors import BroadcastConfigError, BroadcastError
from smartlink.broadcasting.events import BroadcastEvent
from smartlink.broadcasting.facade import BaseBroadcasting
from smartlink.broadcasting.manager import DriverFactory
from smartlink.broadcasting.socket_id import from_socket

if TYPE_CHECKING:
    from smartlink.broadcasting.outbox.django import DjangoOutbox
    from smartlink.broadcasting.recording import RelayThread

__all__ = ["DjangoBroadcasting", "broadcasting_urls", "signed_in_user", "socket_id_middleware"]

_OUTBOX_APP = "smartlink.broadcasting.outbox.django"

UserOf = Callable[[HttpRequest], Any]


def signed_in_user(request: HttpRequest) -> Any:
    """Return the user of Django's authentication, or None if anonymous."""
    user = getattr(request, "user", None)
    return user if user is not None and user.is_authenticated else None


async def signed_in_user_async(request: HttpRequest) -> Any:
    """Same as `signed_in_user`, for async views."""
    auser = getattr(request, "auser", None)
    user = await auser() if auser is not None else None
    return user if user is not None and user.is_authenticated else None


def broadcasting_urls(
    authorizer: ChannelAuthorizer[Any], user_of: UserOf | Mapping[str, UserOf] | None = None, *, is_async: bool = False
) -> list[URLPattern]:
    """Return the URL patterns `auth` and `user-auth`, for GET and POST.

    `user_of` returns a request's user or None, by default Django's signed-in user; it may raise `RequestRefused`. Pass
    a mapping of names to functions for several guards. With `is_async` the views are async; then `user_of` and rules
    may be async too. The views are exempt from the CSRF check, like Laravel's: they change nothing, and another site
    cannot read their response.
    """
    if user_of is None:
        user_of = signed_in_user_async if is_async else signed_in_user
    guards = user_of if isinstance(user_of, Mapping) else {"default": user_of}

    def view(request: HttpRequest) -> HttpResponseBase:
        return _response(authorizer.answer_sync(_auth_request(request), _bound(guards, request)))

    async def async_view(request: HttpRequest) -> HttpResponseBase:
        return _response(await authorizer.answer(_auth_request(request), _bound(guards, request)))

    chosen: Callable[..., Any] = csrf_exempt(async_view if is_async else view)
    return [path("auth", chosen, name="broadcasting-auth"), path("user-auth", chosen, name="broadcasting-user-auth")]


class DjangoBroadcasting(BaseBroadcasting):
    """Broadcasting in one object for Django: like `Broadcasting`, over Django's own database connections.

    `announce` needs `"smartlink.broadcasting.outbox.django"` in INSTALLED_APPS, and `migrate`; `using` names the
    database. With `relay`, a thread of this process sends recorded events; it starts after the first commit that
    announces. Any number of processes may run one; Django's test runner starts none. With `relay=False`, run
    `manage.py broadcast_worker` instead. `to_others=True` needs `socket_id_middleware` in MIDDLEWARE.
    """

    def __init__(
        self,
        settings: BroadcastSettings | None = None,
        *,
        using: str = "default",
        relay: bool = True,
        member_of: Callable[[Any], Member] | None = None,
        drivers: Mapping[str, DriverFactory] | None = None,
        report: Report | None = None,
    ) -> None:
        super().__init__(settings, member_of=member_of, drivers=drivers, report=report)
        self._using = using
        self._relays = relay

    @classmethod
    def from_env(
        cls,
        *,
        using: str = "default",
        relay: bool = True,
        member_of: Callable[[Any], Member] | None = None,
        drivers: Mapping[str, DriverFactory] | None = None,
        report: Report | None = None,
    ) -> Self:
        """Build from the environment and `.env`; see `BroadcastSettings`. The arguments are the constructor's."""
        return cls(BroadcastSettings(), using=using, relay=relay, member_of=member_of, drivers=drivers, report=report)

    @cached_property
    def outbox(self) -> DjangoOutbox:
        """The outbox that `announce` records in. Raises BroadcastConfigError if its Django app is not installed."""
        if not apps.is_installed(_OUTBOX_APP):
            raise BroadcastConfigError(
                f'announce needs the outbox\'s tables: add "{_OUTBOX_APP}" to INSTALLED_APPS and run migrate; '
                "send_now_sync needs neither"
            )
        from smartlink.broadcasting.outbox.django import DjangoOutbox

        return DjangoOutbox(self._using)

    def urls(self, user_of: UserOf | Mapping[str, UserOf] | None = None, *, is_async: bool = False) -> list[URLPattern]:
        """Return `broadcasting_urls`: `path("broadcasting/", include(broadcasting.urls()))`."""
        return broadcasting_urls(self.authorizer, user_of, is_async=is_async)

    def announce(
        self,
        *events: BroadcastEvent,
        to_others: bool = False,
        to_other_users: str | int | None = None,
        receipts: bool | None = None,
    ) -> None:
        """Record `events` in the open transaction, or in one of their own, and send them after the commit.

        They are sent at least once, and not after a rollback; an outage delays them. Call this last in
        `transaction.atomic`, once for all events: on PostgreSQL it holds a lock for each channel until the commit.
        Live events (`BroadcastNow`) are not recorded, and are sent after the commit at most once. Raises what
        `Broadcaster.pack` raises, and BroadcastConfigError if the outbox's app is not installed.
        """
        durable: list[Envelope] = []
        for event in events:
            try:
                packed = self.broadcaster.pack(
                    event, to_others=to_others, to_other_users=to_other_users, receipts=receipts
                )
            except BroadcastError as error:
                self.broadcaster.rescue(event, error)
                continue
            if event.delivery == Delivery.LIVE:
                transaction.on_commit(partial(self._send_live, event, packed), using=self._using)
            else:
                durable += packed
        if durable:
            self.outbox.record(durable)
            transaction.on_commit(self._start_relay, using=self._using)

    def announce_model_changes(self) -> None:
        """Announce the changes of models with `BroadcastsChanges` from now on; see `integrations.django_models`.

        Call it once Django is ready, in `AppConfig.ready` or your module of channel rules; again, it does nothing. A
        change is recorded in the open transaction: without `transaction.atomic`, a crash right after a `save` may lose
        it. On PostgreSQL each change holds a lock for its channel until the commit.
        """
        from smartlink.broadcasting.integrations.django_models import follow_changes

        def announce(model: ChangingModel, change: Change) -> None:
            self.announce(ModelChanged.of(model, change), to_others=model.broadcast_to_others)

        follow_changes(announce, self._using, self)

    def close(self) -> None:
        """Close the connections of `send_now_sync`, and stop the relay's thread. A later use starts again."""
        self._thread.close()
        super().close()

    def _send_live(self, event: BroadcastEvent, envelopes: Sequence[Envelope]) -> None:
        try:
            self.sync.send_envelopes(envelopes)
        except BroadcastError as error:
            # The commit has succeeded, so this must not raise.
            self._report(event, error)

    def _start_relay(self) -> None:
        # Django's test runner sets `mail.outbox`.
        if self._relays and not hasattr(mail, "outbox"):
            self._thread.ensure()

    @cached_property
    def _thread(self) -> RelayThread:
        from smartlink.broadcasting.recording import RelayThread

        return RelayThread(self._relay)

    async def _relay(self, stop: asyncio.Event) -> None:
        from smartlink.broadcasting.outbox import run_worker
        from smartlink.broadcasting.outbox.django.engine import opened_outbox

        try:
            async with opened_outbox(self._using, None) as (engine, tables):
                await run_worker(
                    engine,
                    tables,
                    self.broadcaster,
                    stop=stop,
                    wakeup=self.outbox.wakeup,
                    send_timeout_s=self.settings.timeout_s + 0.5,
                )
        finally:
            await self.aclose()


@sync_and_async_middleware  # type: ignore[untyped-decorator] # Django has no types
def socket_id_middleware(get_response: Callable[[HttpRequest], Any]) -> Callable[[HttpRequest], Any]:
    """Set `current_socket_id()` from `X-Socket-ID` for each request; `to_others=True` needs it.

    Add `"smartlink.broadcasting.integrations.django.socket_id_middleware"` to MIDDLEWARE.
    """
    if iscoroutinefunction(get_response):

        async def async_middleware(request: HttpRequest) -> Any:
            with from_socket(request.headers.get("x-socket-id")):
                return await get_response(request)

        return async_middleware

    def middleware(request: HttpRequest) -> Any:
        with from_socket(request.headers.get("x-socket-id")):
            return get_response(request)

    return middleware


def _bound(guards: Mapping[str, UserOf], request: HttpRequest) -> dict[str, Callable[[], Any]]:
    return {name: partial(guard, request) for name, guard in guards.items()}


def _auth_request(request: HttpRequest) -> AuthRequest:
    def read() -> bytes:
        try:
            body: bytes = request.body
        except RequestDataTooBig:
            raise RequestRefused(413, f"The body is larger than {MAX_BODY_BYTES} bytes.") from None
        except UnreadablePostError:
            raise RequestRefused(400, "The body is incomplete.") from None
        except RawPostDataException:
            # A middleware has already parsed a multipart body, within Django's limits.
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
