"""The endpoints of wallets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends, Query, Request, Response
from fastapi.responses import StreamingResponse

from smartlink.portal.finance.schemas import Movement, MovementType, TransactionOut, WalletOut
from smartlink.portal.finance.service import Filter, Finance
from smartlink.portal.shared.answers import raises, shows
from smartlink.portal.shared.errors import Invalid, TooMany
from smartlink.portal.shared.idempotency import KeyHeader
from smartlink.portal.shared.paging import EVENT_ID, WhichPage
from smartlink.portal.shared.routing import feature_router
from smartlink.portal.shared.times import Moment
from smartlink.portal.users.identity import able
from smartlink.portal.users.service import Principal

__all__ = ["router"]

router = feature_router(prefix="/api/wallet", tags=["wallet"], responses=raises(TooMany))


async def _finance(request: Request) -> Finance:
    finance: Finance = request.app.state.finance
    return finance


async def _filter(
    type: Annotated[MovementType | None, Query(description="Only transactions of this type")] = None,  # noqa: A002 - the parameter's name
    since: Annotated[Moment | None, Query(description="From this time on")] = None,
    until: Annotated[Moment | None, Query(description="Before this time")] = None,
) -> Filter:
    if since is not None and until is not None and until <= since:
        raise Invalid({"until": ["The until field must be after since."]})
    return Filter(type, since, until)


Service = Annotated[Finance, Depends(_finance)]
Reader = Annotated[Principal, able("wallet:read")]
Writer = Annotated[Principal, able("wallet:write")]
Which = Annotated[Filter, Depends(_filter)]


@router.get("", responses=shows(EVENT_ID))
async def show_wallet(caller: Reader, service: Service, response: Response) -> WalletOut:
    """Show your balance. X-Event-Id: the last event it includes."""
    wallet, event_id = await service.wallet(caller)
    response.headers[EVENT_ID] = str(event_id)
    return wallet


@router.get("/transactions")
async def list_transactions(caller: Reader, which: WhichPage, service: Service, only: Which) -> list[TransactionOut]:
    """List your transactions: newest first, or oldest first after an id."""
    return await service.transactions(caller, which, only)


@router.get(
    "/transactions.csv",
    response_class=StreamingResponse,
    responses={
        200: {"content": {"text/csv": {"schema": {"type": "string"}}}, **shows("Content-Disposition")[200]},
    },
)
async def export_transactions(caller: Reader, service: Service, only: Which) -> StreamingResponse:
    """Export your transactions as CSV, oldest first."""

    pieces = await service.export(caller, only)

    async def lines() -> AsyncIterator[str]:
        yield ",".join(TransactionOut.model_fields) + "\r\n"
        async for rows in pieces:
            for row in rows:
                yield ",".join(map(str, row.model_dump(mode="json").values())) + "\r\n"

    headers = {"content-disposition": 'attachment; filename="transactions.csv"'}
    return StreamingResponse(lines(), media_type="text/csv", headers=headers)


async def _move(service: Finance, caller: Principal, kind: MovementType, body: Movement, key: str | None) -> Response:
    answer = await service.move(caller, kind, body.amount, key)
    return Response(answer.body, answer.status, media_type="application/json")


@router.post("/deposits", status_code=201, response_model=TransactionOut)
async def deposit(body: Movement, caller: Writer, service: Service, idempotency_key: KeyHeader = None) -> Response:
    """Deposit money."""
    return await _move(service, caller, "deposit", body, idempotency_key)


@router.post("/withdrawals", status_code=201, response_model=TransactionOut)
async def withdraw(body: Movement, caller: Writer, service: Service, idempotency_key: KeyHeader = None) -> Response:
    """Withdraw money."""
    return await _move(service, caller, "withdrawal", body, idempotency_key)
