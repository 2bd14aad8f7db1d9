"""What is said of an application's events is true: what is sent fits it, and a page that expects anything else does not
compile.
"""

from __future__ import annotations

import datetime as dt
import json
import uuid
from decimal import Decimal
from pathlib import Path

import jsonschema_rs
import pytest

from broadcasting import described_shop as shop
from kit import processes
from kit.serve import SMARTLINK
from smartlink.broadcasting import BroadcastEvent
from smartlink.broadcasting.described import Described, describe, event_types, json_schema, page
from smartlink.broadcasting.payloads import encode_payload

ROOT = Path(__file__).parents[2]
KINDS = (shop.OrderShipped, shop.OrdersClosed, shop.StockChanged, shop.Counted, shop.Named, shop.Vague)
SENT: list[BroadcastEvent] = [
    shop.OrderShipped(
        7, shop.State.NEW, Decimal("1.50"), dt.datetime(2026, 1, 31, tzinfo=dt.UTC), [shop.Line("a")],
        shop.Address(street="High Street 1"), {"a": 1}, (1.0, 2.0),
    ),
    shop.OrdersClosed("Ana"),
    shop.StockChanged(site=uuid.UUID(int=1), count=3),
    shop.Counted(),
    shop.Vague("x"),
]  # fmt: skip
PAGE = """
import type { EventPayloads, Listen, PresenceChannels, PrivateChannels, ChannelEvents } from './events'

declare const useEcho: (channel: string, event: string | string[], callback: (payload: never) => void) => void
const listen = useEcho as unknown as Listen<PrivateChannels>
const join = useEcho as unknown as Listen<PresenceChannels>
listen('orders.7', 'OrderShipped', (order) => {
  const id: number = order.order_id
  const state: 'new' | 'shipped' = order.state
  const sku: string | undefined = order.lines[0]?.sku
  const zip: string | null = order.to.zip_code
  const eventId: number | undefined = order.eventId
  return [id, state, sku, zip, eventId]
})
join('stock.x', '.stock.changed', ({ count }) => count.toFixed())
listen('orders.all', 'OrdersClosed', ({ by }) => by.trim())
const on: ChannelEvents['private-orders.7'] = 'OrderShipped'
const totals: EventPayloads['Counted'] = { open: 1, closed: 2 }
// @ts-expect-error no such channel
listen('order.7', 'OrderShipped', () => {})
// @ts-expect-error no such event on it
listen('orders.7', '.stock.changed', () => {})
// @ts-expect-error no such field
listen('orders.7', 'OrderShipped', (order) => order.order)
// @ts-expect-error not a secret
listen('orders.7', 'OrderShipped', (order) => order._note)
export { on, totals }
"""


@pytest.fixture(scope="module")
def described() -> Described:
    return describe(KINDS, shop.broadcasting.rules)


@pytest.mark.parametrize("event", SENT, ids=lambda event: type(event).__name__)
def test_what_is_sent_fits_what_is_said(event: BroadcastEvent, described: Described) -> None:
    schema = json_schema(described.document)
    validator = jsonschema_rs.validator_for(schema | {"additionalProperties": False}, validate_formats=True)
    name, payload = type(event).broadcast_name(), json.loads(encode_payload(event.broadcast_with()))

    validator.validate({name: payload})
    assert validator.is_valid({name: {}}) is isinstance(event, shop.Vague)


def test_channels_say_who_may_listen_and_what_is_sent(described: Described) -> None:
    channels = {channel["address"]: channel for channel in described.document["channels"].values()}

    assert {address: list(channel["messages"]) for address, channel in channels.items()} == {
        "presence-rooms.{name}": [],
        "presence-stock.{site}": ["StockChanged"],
        "private-encrypted-vault.{kind}": ["Vague"],
        "private-orders.all": ["OrdersClosed"],
        "private-orders.{order_id}": ["OrderShipped"],
        "shipments": ["OrderShipped"],
        "totals": ["Counted"],
    }
    assert channels["private-orders.{order_id}"]["description"] == "Subscribers: The customer, and who packs it."


def test_what_cannot_be_said_is_told(described: Described) -> None:
    assert {problem.partition(":")[0] for problem in described.problems} == {
        "Named is left out",
        "what Vague sends is not known",
        "no rule lets anybody listen to private-encrypted-vault.{kind}",
        "no rule lets anybody listen to presence-stock.{site}",
    }


def test_two_classes_with_one_name_are_told() -> None:
    class Other(shop.StockChanged):
        pass

    [problem] = describe([shop.StockChanged, Other]).problems

    assert "StockChanged has the same name, stock.changed" in problem


def test_the_page_names_everything(described: Described) -> None:
    text = page(described.document)

    for said in ("`private-orders.{order_id}`", "An order is on its way.", "`Line[]`", "With the house number", "uuid"):
        assert said in text


def test_a_page_that_expects_something_else_does_not_compile(described: Described, tmp_path: Path) -> None:
    compiler = ROOT / "frontend/node_modules/.bin/tsc"
    if not compiler.exists():
        pytest.skip("needs the front end's packages: make setup-dev")
    (tmp_path / "events.ts").write_text(event_types(described.document))
    (tmp_path / "page.ts").write_text(PAGE)

    done = processes.run(
        [str(compiler), "--noEmit", "--strict", "--noUncheckedIndexedAccess", "--target", "es2022",
         "--module", "esnext", "--moduleResolution", "bundler", "page.ts"],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout


def test_the_command_writes_and_checks(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(Path(shop.__file__).read_text())
    words = [SMARTLINK, "events", "types", "shop:broadcasting", "--typescript", "web/events.ts", "--asyncapi", "a.json",
             "--json-schema", "s.json", "--markdown", "events.md"]  # fmt: skip

    def run(*more: str) -> tuple[int, str]:
        done = processes.run([*words, *more], cwd=tmp_path, capture_output=True, text=True)
        return done.returncode, done.stderr

    code, said = run("--check")
    assert code == 1
    assert "Not current: web/events.ts, a.json, s.json, events.md" in said
    code, said = run()
    assert code == 0
    assert "Named is left out" in said
    assert run("--check")[0] == 0
    assert json.loads((tmp_path / "a.json").read_text())["asyncapi"] == "3.0.0"
    (tmp_path / "shop.py").write_text((tmp_path / "shop.py").read_text().replace("count: int\n", "count: str\n"))
    assert run("--check")[0] == 1


@pytest.mark.parametrize(
    ("source", "code", "said"),
    [
        ("nowhere", 2, "There is no module nowhere"),
        ("empty", 1, "No event classes in empty"),
        ("empty:app", 2, "empty:app is not a Broadcasting"),
    ],
)
def test_what_is_no_application_is_said(source: str, code: int, said: str, tmp_path: Path) -> None:
    (tmp_path / "empty.py").write_text("app = 1\n")

    done = processes.run([SMARTLINK, "events", "types", source], cwd=tmp_path, capture_output=True, text=True)

    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr
