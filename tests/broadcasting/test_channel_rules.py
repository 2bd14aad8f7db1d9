"""Channel rules: access is denied unless a rule allows it; numbers are canonical; channel kinds are separate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest

from smartlink.broadcasting import ChannelRules, Member


def rules_with(pattern: str, answer: object, kind: str = "private") -> ChannelRules:
    rules = ChannelRules()
    getattr(rules, kind)(pattern)(lambda user: answer)
    return rules


@pytest.fixture
def rules() -> ChannelRules:
    rules = ChannelRules()

    @rules.private("user.{user_id}")
    def own(user: int, user_id: int) -> bool:
        return user == user_id

    @rules.private("chat.{low}.{high}")
    async def pair(user: int, low: int, high: int) -> bool:
        return low < high and user in (low, high)

    @rules.presence("chat")
    def everybody(user: int) -> dict[str, object]:
        return {"name": f"User {user}"}

    @rules.any("room.{name}")
    def room(user: int, name: str) -> bool:
        return name == "blue"

    return rules


@pytest.mark.parametrize(
    "channel",
    [
        "private-user.7",
        "private-chat.7.9",
        "private-chat.1.7",
        "presence-chat",
        "private-room.blue",
        "presence-room.blue",
    ],
)
async def test_what_a_rule_allows_is_allowed(rules: ChannelRules, channel: str) -> None:
    assert (await rules.decide(7, channel)).allowed


@pytest.mark.parametrize(
    "channel",
    [
        "private-user.8",
        "private-user.07",
        "private-user.+7",
        "private-user.-7",
        "private-user.7.0",
        "private-user.7.",
        "private-user.",
        "private-user.７",
        "private-user.7\n",
        "private-user.9223372036854775808",
        "private-user.1e3",
        "private-chat.9.7",
        "private-chat.7.7",
        "private-chat.07.9",
        "private-chat.7.9.1",
        "private-chat",
        "presence-user.7",
        "presence-chat.7.9",
        "private-private-user.7",
        "private-room.red",
        "private-room.blue.x",
        "Private-user.7",
        " private-user.7",
        "private-encrypted-user.8",
        "private-cache-private-user.7",
        "presence-encrypted-user.7",
        "private-unknown",
        "chat",
        "private-",
        "",
        "#server-to-user-7",
        "private-__proto__",
        "private-{0.__class__}",
    ],
)
async def test_everything_else_is_denied(rules: ChannelRules, channel: str) -> None:
    assert not (await rules.decide(7, channel)).allowed


async def test_the_largest_id_is_the_databases_maximum() -> None:
    rules = ChannelRules()
    rules.private("user.{user_id}")(_is_a_number)

    assert (await rules.decide(1, f"private-user.{2**63 - 1}")).allowed
    assert (await rules.decide(1, "private-user.0")).allowed
    assert not (await rules.decide(1, f"private-user.{2**63}")).allowed


def _is_a_number(user: object, user_id: int) -> bool:
    return type(user_id) is int


async def test_a_decision_names_the_rule_and_the_reason(rules: ChannelRules) -> None:
    no = await rules.decide(7, "private-user.8")
    none = await rules.decide(7, "private-unknown")

    assert (no.rule, no.why) == ("private-user.{user_id}", "the rule says no")
    assert (none.rule, none.why) == (None, "no rule matches")


async def test_a_rule_may_describe_the_member(rules: ChannelRules) -> None:
    assert (await rules.decide(7, "presence-chat")).info == {"name": "User 7"}
    assert (await rules_with("x", Member(7, {"a": 1}), "presence").decide(7, "presence-x")).member == Member(
        "7", {"a": 1}
    )


async def test_none_continues_with_the_next_rule_and_false_does_not() -> None:
    open_first, closed_first = ChannelRules(), ChannelRules()
    open_first.private("a.{x}")(_unsure)
    open_first.private("{y}.{x}")(_yes)
    closed_first.private("a.{x}")(_no)
    closed_first.private("{y}.{x}")(_yes)

    assert (await open_first.decide(1, "private-a.b")).allowed
    assert not (await closed_first.decide(1, "private-a.b")).allowed


def _unsure(user: object, x: str) -> None:
    return None


def _no(user: object, x: str) -> bool:
    return False


def _yes(user: object, y: str, x: str) -> bool:
    return True


@pytest.mark.parametrize("answer", [1, "yes", object(), [1]])
async def test_a_rule_that_returns_neither_true_nor_false_is_an_error(answer: object) -> None:
    with pytest.raises(TypeError, match="private-x"):
        await rules_with("x", answer).decide(1, "private-x")


async def test_without_rules_everything_is_denied() -> None:
    assert not (await ChannelRules().decide(1, "private-x")).allowed


@pytest.mark.parametrize(
    ("pattern", "rule"),
    [
        ("private-user.{user_id}", lambda user, user_id: True),
        ("user.{user_id}", lambda user: True),
        ("user.{user_id}", lambda user, other: True),
        ("user", lambda: True),
        ("user", lambda user, more: True),
        ("{a}{b}", lambda user, a, b: True),
        ("{a}.{a}", lambda user, a: True),
        ("user.{0}", lambda user: True),
        ("user *", lambda user: True),
        ("", lambda user: True),
    ],
)
def test_a_pattern_that_does_not_match_its_function_is_refused_at_definition(
    pattern: str, rule: Callable[..., Any]
) -> None:
    with pytest.raises(ValueError, match=r"placeholder|prefix|takes|characters"):
        ChannelRules().private(pattern)(rule)


def test_a_placeholder_is_a_number_or_text() -> None:
    def rule(user: object, x: float) -> bool:
        return True

    with pytest.raises(ValueError, match="use str, int or UUID"):
        ChannelRules().private("{x}")(rule)


def test_a_pattern_has_one_rule_for_each_kind() -> None:
    rules = rules_with("chat", True)
    rules.presence("chat")(lambda user: True)

    with pytest.raises(ValueError, match="already has a rule"):
        rules.any("chat")(lambda user: True)


async def test_matching_a_name_of_100000_characters_is_fast() -> None:
    rules = ChannelRules()
    rules.private("{a}x{b}x{c}x{d}")(_four)
    hostile = "private-" + "x" * 100_000

    # Tried against the pattern itself, this backtracks for hours.
    assert not (await rules.decide(1, hostile)).allowed


def _four(user: object, a: str, b: str, c: str, d: str) -> bool:
    return True


@pytest.mark.parametrize("member_id", ["", True])
def test_a_member_has_an_id(member_id: Any) -> None:
    with pytest.raises(ValueError, match="id"):
        Member(member_id)


@dataclass(frozen=True)
class Order:
    id: int
    owner: int


async def load_order(order_id: int) -> Order | None:
    return Order(order_id, owner=7) if order_id < 100 else None


class OwnOrder:
    """A rule as a class."""

    def join(self, user: int, order: Order) -> bool:
        return user == order.owner


@pytest.fixture
def loading() -> ChannelRules:
    rules = ChannelRules()
    rules.resolve(Order, load_order)
    rules.private("orders.{order}")(OwnOrder)

    @rules.private("orders.{order}.lines")
    def lines(user: int, order: Order) -> bool:
        return user == order.owner

    @rules.private("files.{file}")
    def file(user: int, file: UUID) -> bool:
        return file.version == 4

    @rules.private("orders.{anything}")
    def never_reached_for_missing_orders(user: int, anything: str) -> bool:
        return True

    return rules


@pytest.mark.parametrize(
    ("user", "channel", "allowed"),
    [
        (7, "private-orders.1", True),
        (7, "private-cache-orders.1", True),
        (7, "private-encrypted-orders.1", True),
        (7, "private-encrypted-cache-orders.1", True),
        (8, "private-orders.1", False),
        (7, "private-orders.100", False),
        (7, "private-orders.1.lines", True),
        (7, "private-orders.100.lines", False),
        (7, "private-orders.01", True),
        (7, "presence-orders.1", False),
        (7, "private-files.b4a3c0de-0000-4000-8000-000000000000", True),
        (7, "private-files.B4A3C0DE-0000-4000-8000-000000000000", False),
        (7, "private-files.b4a3c0de", False),
    ],
)
async def test_a_placeholder_may_be_loaded(loading: ChannelRules, user: int, channel: str, allowed: bool) -> None:
    assert (await loading.decide(user, channel)).allowed is allowed


def test_a_sync_decision_runs_async_rules_without_a_loop(loading: ChannelRules) -> None:
    assert loading.decide_sync(7, "private-orders.1").allowed
    assert loading.decide_sync(7, "private-orders.100").why == "there is no Order 100"


async def test_a_sync_decision_with_an_async_rule_raises_inside_a_loop(loading: ChannelRules) -> None:
    with pytest.raises(RuntimeError, match="await"):
        loading.decide_sync(7, "private-orders.1")
    assert loading.decide_sync(7, "private-files.b4a3c0de-0000-4000-8000-000000000000").allowed


def test_a_parameter_type_without_a_loader_is_refused_when_the_rule_is_added() -> None:
    rules = ChannelRules()

    with pytest.raises(ValueError, match=r"rules\.resolve\(Order, load_order\)"):
        rules.private("orders.{order}")(OwnOrder)


@pytest.mark.parametrize("pattern", ["private-x", "presence-x", "cache-x", "private-encrypted-x"])
def test_a_pattern_has_no_prefix(pattern: str) -> None:
    with pytest.raises(ValueError, match="leave the prefix out"):
        ChannelRules().any(pattern)(lambda user: True)


@pytest.mark.parametrize(
    ("pattern", "name", "value"),
    [
        ("sites.{domain:path}", "sites.example.com", "example.com"),
        ("sites.{domain:path}", "sites.localhost", "localhost"),
        ("sites.{domain:path}.page.{page}", "sites.www.example.com.page.7", "www.example.com"),
        ("sites.{domain:path}", "sites.", None),
        ("sites.{domain:path}", "sites", None),
        ("sites.{domain}", "sites.example.com", None),
    ],
)
async def test_a_placeholder_matches_dots_only_with_path(pattern: str, name: str, value: str | None) -> None:
    rules, found = ChannelRules(), []

    @rules.private(pattern)
    def rule(user: int, domain: str, page: int = 0) -> bool:
        found.append(domain)
        return True

    assert (await rules.decide(7, f"private-{name}")).allowed is (value is not None)
    assert found == ([] if value is None else [value])


def test_a_path_placeholder_is_text_and_the_only_one() -> None:
    def numbered(user: int, n: int) -> bool:
        return True

    def two(user: int, a: str, b: str) -> bool:
        return True

    with pytest.raises(ValueError, match="with :path gives text"):
        ChannelRules().private("a.{n:path}")(numbered)
    with pytest.raises(ValueError, match="use one"):
        ChannelRules().private("a.{a:path}.{b:path}")(two)
