"""Wallets over HTTP: exact, never below zero, idempotent, and visible to the owner only."""

from __future__ import annotations

import asyncio
import csv
import io
from decimal import Decimal
from typing import Any

import pytest

from kit.portal import Person, World, payloads
from smartlink.broadcasting import PrivateChannel
from smartlink.portal.finance.events import DepositCompleted, WithdrawalProcessed
from smartlink.portal.notifications.events import NotificationCreated

KEYS = {"id", "type", "amount", "balance_after", "version", "created_at"}


async def balance(person: Person) -> str:
    text: str = (await person.get("/api/wallet")).json()["balance"]
    return text


async def test_a_new_wallet_is_empty(ana: Person) -> None:
    answer = await ana.get("/api/wallet")

    assert (answer.status_code, answer.json()) == (200, {"balance": "0.00", "currency": "EUR", "version": 0})
    assert (await ana.get("/api/wallet/transactions")).json() == []


async def test_deposits_and_withdrawals_are_announced_to_the_owner(world: World, ana: Person, ben: Person) -> None:
    put = await ana.post("/api/wallet/deposits", {"amount": "100.10"})
    took = await ana.post("/api/wallet/withdrawals", {"amount": 30})

    assert (put.status_code, took.status_code) == (201, 201)
    assert set(put.json()) == KEYS
    assert (took.json()["amount"], took.json()["balance_after"], took.json()["version"]) == ("30.00", "70.10", 2)
    assert (await ana.get("/api/wallet")).json() == {"balance": "70.10", "currency": "EUR", "version": 2}
    assert await balance(ben) == "0.00"
    sent, on = await world.broadcasts(), PrivateChannel(f"financial.{ana.id}")
    user = {"id": ana.id, "name": "Ana"}
    for event, answer in ((DepositCompleted, put), (WithdrawalProcessed, took)):
        [data] = payloads(sent, event.__name__, on=on)
        assert set(data) == {"eventId", "user", "amount", "transactionId"}
        assert (data["user"], data["amount"], data["transactionId"]) == (
            user, answer.json()["amount"], answer.json()["id"],
        )  # fmt: skip
    updates = [{key: data[key] for key in data if key != "eventId"} for data in payloads(sent, "BalanceUpdated", on=on)]
    assert updates == [
        {"user": user, "oldBalance": "0.00", "newBalance": "100.10", "version": 1},
        {"user": user, "oldBalance": "100.10", "newBalance": "70.10", "version": 2},
    ]
    sent.assert_broadcast(NotificationCreated, on=PrivateChannel(f"user.{ana.id}"), times=2)


@pytest.mark.parametrize(
    "amount",
    ["0", 0, "-1", -1, "1.005", 0.001, "1e2", 1e300, "NaN", "Infinity", "-0", "1000000000000", "9" * 400, "ten", "", "1,5",
     "1 ", "0x10", "١", True, None, [], {}],
)  # fmt: skip
async def test_invalid_amounts_are_refused(world: World, ana: Person, amount: Any) -> None:
    await ana.post("/api/wallet/deposits", {"amount": "5"})

    for path in ("deposits", "withdrawals"):
        answer = await ana.post(f"/api/wallet/{path}", {"amount": amount})
        assert answer.status_code == 422, answer.text
        assert set(answer.json()["errors"]) == {"amount"}
    assert await balance(ana) == "5.00"


async def test_a_withdrawal_above_the_balance_is_refused(world: World, ana: Person) -> None:
    assert (await ana.post("/api/wallet/withdrawals", {"amount": "0.01"})).status_code == 422
    await ana.post("/api/wallet/deposits", {"amount": "10"})

    answer = await ana.post("/api/wallet/withdrawals", {"amount": "10.01"})

    assert answer.status_code == 422
    assert set(answer.json()["errors"]) == {"amount"}
    assert (await ana.post("/api/wallet/withdrawals", {"amount": "10"})).json()["balance_after"] == "0.00"
    (await world.broadcasts()).assert_broadcast(WithdrawalProcessed, times=1)


async def test_a_balance_has_a_maximum(ana: Person) -> None:
    await ana.post("/api/wallet/deposits", {"amount": "999999999999.99"})

    assert (await ana.post("/api/wallet/deposits", {"amount": "0.01"})).status_code == 422
    assert await balance(ana) == "999999999999.99"


async def test_the_same_key_moves_money_once(world: World, ana: Person, ben: Person) -> None:
    headers = {"idempotency-key": "abc"}
    answers = await asyncio.gather(
        *(ana.post("/api/wallet/deposits", {"amount": "5"}, headers=headers) for _ in range(6))
    )

    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.text for answer in answers}) == 1
    assert await balance(ana) == "5.00"
    assert (await ana.post("/api/wallet/deposits", {"amount": "6"}, headers=headers)).status_code == 422
    assert (await ana.post("/api/wallet/withdrawals", {"amount": "5"}, headers=headers)).status_code == 201
    assert (await ben.post("/api/wallet/deposits", {"amount": "5"}, headers=headers)).status_code == 201
    (await world.broadcasts()).assert_broadcast(DepositCompleted, times=2)


async def test_a_refused_withdrawal_does_not_use_up_its_key(ana: Person) -> None:
    headers = {"idempotency-key": "abc"}
    assert (await ana.post("/api/wallet/withdrawals", {"amount": "5"}, headers=headers)).status_code == 422
    await ana.post("/api/wallet/deposits", {"amount": "5"})

    assert (await ana.post("/api/wallet/withdrawals", {"amount": "5"}, headers=headers)).status_code == 201


async def test_concurrent_transactions_are_exact(world: World, ana: Person) -> None:
    await ana.post("/api/wallet/deposits", {"amount": "10"})

    answers = await asyncio.gather(
        *(ana.post("/api/wallet/withdrawals", {"amount": "1"}) for _ in range(25)),
        *(ana.post("/api/wallet/deposits", {"amount": "0.10"}) for _ in range(20)),
    )

    taken = [answer for answer in answers[:25] if answer.status_code == 201]
    assert {answer.status_code for answer in answers[:25]} <= {201, 422}
    assert {answer.status_code for answer in answers[25:]} == {201}
    assert len(taken) >= 10
    assert Decimal(await balance(ana)) == Decimal(10) + Decimal("2.00") - len(taken)
    rows = (await ana.get("/api/wallet/transactions?limit=100")).json()
    assert [row["version"] for row in rows] == list(range(len(rows), 0, -1))
    running = Decimal(0)
    for row in reversed(rows):
        running += Decimal(row["amount"]) * (1 if row["type"] == "deposit" else -1)
        assert Decimal(row["balance_after"]) == running


async def test_every_transaction_has_two_entries_that_sum_to_zero(world: World, ana: Person, ben: Person) -> None:
    for person, amount in ((ana, "3"), (ben, "7.25")):
        await person.post("/api/wallet/deposits", {"amount": amount})
    await ana.post("/api/wallet/withdrawals", {"amount": "1.5"})

    sums = await world.rows(
        "SELECT sum(amount) AS total, count(*) AS sides FROM ledger_entries GROUP BY transaction_id"
    )
    assert [(int(row.total), row.sides) for row in sums] == [(0, 2)] * 3
    wallets = await world.rows(
        "SELECT w.balance, (SELECT sum(e.amount) FROM ledger_entries e WHERE e.account = 'wallet:' || w.id) AS entries"
        " FROM wallets w"
    )
    assert all(int(row.entries) == row.balance for row in wallets)


async def test_a_statement_is_paged_filtered_and_exported(ana: Person, ben: Person) -> None:
    ids = [(await ana.post("/api/wallet/deposits", {"amount": number})).json()["id"] for number in (1, 2, 3)]
    ids.append((await ana.post("/api/wallet/withdrawals", {"amount": "2.50"})).json()["id"])
    await ben.post("/api/wallet/deposits", {"amount": "9"})

    def listed(answer: Any) -> list[int]:
        return [row["id"] for row in answer.json()]

    assert listed(await ana.get("/api/wallet/transactions?limit=2")) == [ids[3], ids[2]]
    assert listed(await ana.get(f"/api/wallet/transactions?before={ids[2]}")) == [ids[1], ids[0]]
    assert listed(await ana.get(f"/api/wallet/transactions?after={ids[1]}")) == [ids[2], ids[3]]
    assert listed(await ana.get("/api/wallet/transactions?type=withdrawal")) == [ids[3]]
    assert listed(await ana.get("/api/wallet/transactions?since=2100-01-01T00:00:00Z")) == []
    assert len(listed(await ana.get("/api/wallet/transactions?until=2100-01-01T00:00:00Z"))) == 4
    assert (await ana.get("/api/wallet/transactions?type=gift")).status_code == 422
    assert (await ana.get("/api/wallet/transactions?since=yesterday")).status_code == 422

    exported = await ana.get("/api/wallet/transactions.csv")
    assert exported.headers["content-type"].startswith("text/csv")
    assert "attachment" in exported.headers["content-disposition"]
    rows = list(csv.DictReader(io.StringIO(exported.text)))
    assert [int(row["id"]) for row in rows] == ids
    assert rows[-1]["amount"] == "2.50"
    assert rows[-1]["balance_after"] == "3.50"


async def test_too_many_calls_get_retry_after(ana: Person) -> None:
    answers = [await ana.get("/api/wallet") for _ in range(200)]

    refused = [answer for answer in answers if answer.status_code == 429]
    assert refused
    assert int(refused[0].headers["retry-after"]) >= 1


async def test_without_a_sign_in_requests_get_401(world: World) -> None:
    stranger = world.client()

    for path in ("/api/wallet", "/api/wallet/transactions", "/api/wallet/transactions.csv"):
        assert (await stranger.get(path)).status_code == 401
    for path in ("/api/wallet/deposits", "/api/wallet/withdrawals"):
        assert (await stranger.post(path, json={"amount": "1"})).status_code == 401


async def test_exports_are_rate_limited(world: World, ana: Person) -> None:
    world.portal.limits.allowed = dict(world.portal.limits.allowed) | {"wallet": (1, 3600.0)}

    answers = [await ana.get("/api/wallet/transactions.csv") for _ in range(2)]

    assert answers[0].text == "id,type,amount,balance_after,version,created_at\r\n"
    assert (answers[1].status_code, answers[1].json()) == (429, {"message": "Too many attempts."})
    assert answers[1].headers["retry-after"] == "3600"


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("since=0001-01-01T00:00:00%2B14:00", "since"),
        ("until=9999-12-31T23:59:59-12:00", "until"),
        ("since=1800000000", "since"),
        ("since=2026-01-02T00:00:00Z&until=2026-01-01T00:00:00Z", "until"),
    ],
)
@pytest.mark.parametrize("path", ["transactions", "transactions.csv"])
async def test_an_invalid_time_is_refused(ana: Person, path: str, query: str, field: str) -> None:
    answer = await ana.get(f"/api/wallet/{path}?{query}")

    assert answer.status_code == 422
    assert set(answer.json()["errors"]) == {field}


async def test_of_two_concurrent_withdrawals_one_finds_too_little(world: World, ana: Person) -> None:
    await ana.post("/api/wallet/deposits", {"amount": "10.00"})

    answers = await asyncio.gather(
        *(ana.post("/api/wallet/withdrawals", {"amount": "6.00"}) for _ in range(2)),
    )

    assert sorted(answer.status_code for answer in answers) == [201, 422]
    assert (await ana.get("/api/wallet")).json()["balance"] == "4.00"
