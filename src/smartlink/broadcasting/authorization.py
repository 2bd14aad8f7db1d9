"""Rules for who may subscribe: channel patterns, each with a function. Access is denied unless a rule allows it.

    rules = ChannelRules()
    rules.resolve(Order, load_order)

    @rules.private("user.{user_id}")
    def own_channel(user: User, user_id: int) -> bool:
        return user.id == user_id

    @rules.private("orders.{order}")
    def own_order(user: User, order: Order) -> bool:
        return user.id == order.owner_id

A placeholder matches one or more characters without a dot. The function gets its value by name, in the annotated type:
`str`; `int`, a canonical decimal number (`7`, never `07`, `-7` or digits of another script); `UUID`, in canonical form;
or what a loader returns for it, with access denied if that is None. A placeholder with `:path` matches dots too and is
text: `sites.{domain:path}` matches `sites.example.com`; a pattern can have one of them.
"""

from __future__ import annotations

import datetime as dt
import inspect
import math
import re
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Concatenate, Protocol, TypeVar
from uuid import UUID

from smartlink.broadcasting.channels import name_without_prefix
from smartlink.broadcasting.steps import Steps, settle, settle_sync
from smartlink.protocol.names import ChannelKind, is_valid_channel, kind_of

__all__ = ["ChannelRule", "ChannelRules", "Decision", "Grant", "Member"]

_PLACEHOLDER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)(:path)?\}")
_LITERAL = re.compile(r"[-a-zA-Z0-9_=@,.;]*\Z")
_MAX_INT = 2**63 - 1
_FORMS: Mapping[type, str] = {
    str: "[^.]+",
    int: "0|[1-9][0-9]{0,18}",
    UUID: "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
}
_WITH_DOTS = ".+"
_PRIVATE = frozenset({ChannelKind.PRIVATE, ChannelKind.ENCRYPTED})
_PRESENCE = frozenset({ChannelKind.PRESENCE})

Loaded = TypeVar("Loaded")
UserOf = Callable[[Sequence[str]], Steps[Any]]


@dataclass(frozen=True, slots=True)
class Member:
    """A user on a presence channel: `id`, stored as text, and `info`, which other members see.

    Raises ValueError for an empty or boolean id.
    """

    id: str | int
    info: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if isinstance(self.id, bool) or not str(self.id):
            raise ValueError(f"a member's id must be a non-empty string or a number, not {self.id!r}")
        object.__setattr__(self, "id", str(self.id))


@dataclass(frozen=True, slots=True)
class Grant:
    """Allows until a time: then the server ends the subscription, and the client asks the endpoint again if it wants.

    `expires_in` counts from the decision, as a timedelta or in seconds; `expires_at` is an aware datetime or seconds
    since 1970. Give one of them, or neither for no end. `info` is what other members of a presence channel see, and
    `member` is who they see instead of the user. Only SmartLink's own server ends subscriptions: with the drivers
    `pusher` and `ably`, the authorization endpoint raises BroadcastConfigError.

    Raises ValueError for a duration that is not positive, a datetime without time zone, and for two times or both
    `info` and `member`; TypeError for other types.
    """

    expires_in: dt.timedelta | float | None = None
    expires_at: dt.datetime | float | None = None
    info: Mapping[str, object] | None = None
    member: Member | None = None

    def __post_init__(self) -> None:
        if self.expires_in is not None and self.expires_at is not None:
            raise ValueError("a Grant has one end: give expires_in or expires_at")
        if self.info is not None and self.member is not None:
            raise ValueError("a Grant has info or a member: put the info into the Member")
        if not isinstance(self.info, Mapping | None):
            raise TypeError(f"a Grant's info is a mapping, not {type(self.info).__name__}")
        if not isinstance(self.member, Member | None):
            raise TypeError(f"a Grant's member is a Member, not {type(self.member).__name__}")
        if self.expires_in is not None and _seconds("expires_in", self.expires_in, dt.timedelta) <= 0:
            raise ValueError(f"expires_in={self.expires_in!r} has passed already; return False to deny")
        if self.expires_at is not None:
            _seconds("expires_at", self.expires_at, dt.datetime)

    def ends_at(self, now: float) -> float | None:
        """Return when it ends, for a decision made `now`, both in seconds since 1970; None for no end."""
        if self.expires_in is not None:
            return now + _seconds("expires_in", self.expires_in, dt.timedelta)
        return None if self.expires_at is None else _seconds("expires_at", self.expires_at, dt.datetime)


_LATEST = 1e12
"""The server reads times below this; it is in the year 33658."""


def _seconds(name: str, given: object, kind: type[dt.timedelta | dt.datetime]) -> float:
    """Return a duration, or a time since 1970, in seconds. Raises TypeError and ValueError."""
    if isinstance(given, dt.datetime) and kind is dt.datetime:
        if given.utcoffset() is None:
            raise ValueError(f"{name}={given!r} has no time zone; use datetime.now(UTC)")
        return given.timestamp()
    if isinstance(given, dt.timedelta) and kind is dt.timedelta:
        return given.total_seconds()
    if isinstance(given, bool) or not isinstance(given, int | float):
        raise TypeError(f"{name} is a {kind.__name__} or a number of seconds, not {given!r:.60}")
    if not math.isfinite(given) or not -_LATEST < given < _LATEST / 2:
        raise ValueError(f"{name}={given!r} is not a number of seconds that a server can wait for")
    return given


Verdict = bool | Mapping[str, object] | Member | Grant | None
"""What a rule answers: yes or no, what others see of the member, yes until a time, or None to pass to the next rule."""


class JoinRule(Protocol):
    """A rule as an object: its `join` decides, called with the user and the placeholders."""

    @property
    def join(self) -> RuleFunction: ...


RuleFunction = Callable[Concatenate[Any, ...], Verdict | Awaitable[Verdict]]
Rule = TypeVar("Rule", bound=RuleFunction | JoinRule | type[JoinRule])


@dataclass(frozen=True, slots=True)
class Decision:
    """The decision of the rules about a user and a channel.

    `rule` is the pattern that decided, or None if none matched. `why` is for operators, not for the user. `member` or
    `info` is set if the rule returned one. `user` is the user of the rule's guard. `expires_at` is when the
    subscription ends, in seconds since 1970, or None for never.
    """

    allowed: bool
    why: str
    rule: str | None = None
    member: Member | None = None
    info: Mapping[str, object] | None = None
    user: Any = None
    expires_at: float | None = None


@dataclass(frozen=True, slots=True)
class _Placeholder:
    """Converts a placeholder's text to `kind`, which is `str`, `int` or `UUID`, and loads an object with `load`."""

    kind: type
    load: Callable[[Any], object] | None = None
    of: str = ""


@dataclass(frozen=True, slots=True)
class ChannelRule:
    """A pattern, the kinds of channels it applies to, its guards, and the function that decides."""

    pattern: str
    kinds: frozenset[ChannelKind]
    function: Callable[..., object]
    guards: tuple[str, ...]
    matcher: re.Pattern[str]
    placeholders: Mapping[str, _Placeholder]

    def matches(self, name: str) -> dict[str, object] | None:
        """Return the placeholders' values in `name`, a channel name without prefix, or None if it does not match.

        Loaders are not called.
        """
        found = self.matcher.fullmatch(name)
        if found is None:
            return None
        values: dict[str, object] = {}
        for parameter, placeholder in self.placeholders.items():
            value = placeholder.kind(found[parameter])
            if isinstance(value, int) and value > _MAX_INT:
                return None
            values[parameter] = value
        return values


class ChannelRules:
    """A list of rules, tried in the order they were added. The first that returns yes or no decides.

    A rule is a function, or a class with a method `join`, of the user and the placeholders; it may be async. True
    allows and False denies; None passes to the next matching rule. On presence channels, a mapping (what others see)
    or a `Member` allows too. A `Grant` allows until a time, on every kind. Rules also apply to cache channels, and
    private rules to encrypted channels. With `guards`, a rule applies to the users of these guards (see
    `BroadcastingAuth`), and is skipped if none of them knows the caller.
    """

    def __init__(self) -> None:
        self._rules: list[ChannelRule] = []
        self._loaders: dict[type, Callable[[Any], object]] = {}

    def __iter__(self) -> Iterator[ChannelRule]:
        """Iterate over the rules, in order."""
        return iter(tuple(self._rules))

    @property
    def rules(self) -> tuple[ChannelRule, ...]:
        """The rules, in order."""
        return tuple(self._rules)

    @property
    def guards(self) -> frozenset[str]:
        """All guards named by rules."""
        return frozenset(guard for rule in self._rules for guard in rule.guards)

    def resolve(self, kind: type[Loaded], load: Callable[[Any], Loaded | Awaitable[Loaded | None] | None]) -> None:
        """Load parameters annotated with `kind` by `load`, a function of the placeholder's value; it may be async.

        It gets text, or an `int` or `UUID` if annotated so. Access is denied if it returns None. Call this before
        adding the rules that need it.
        """
        self._loaders[kind] = load

    def private(self, pattern: str, *, guards: Sequence[str] = ()) -> Callable[[Rule], Rule]:
        """Add a rule for `private-{pattern}`; a decorator. Raises ValueError if pattern and function do not match."""
        return self._adder(pattern, _PRIVATE, guards)

    def presence(self, pattern: str, *, guards: Sequence[str] = ()) -> Callable[[Rule], Rule]:
        """Add a rule for `presence-{pattern}`; a decorator. Raises ValueError if pattern and function do not match."""
        return self._adder(pattern, _PRESENCE, guards)

    def any(self, pattern: str, *, guards: Sequence[str] = ()) -> Callable[[Rule], Rule]:
        """Add a rule for both; a decorator. Raises ValueError if pattern and function do not match."""
        return self._adder(pattern, _PRIVATE | _PRESENCE, guards)

    async def decide(self, user: object, wire_name: str) -> Decision:
        """Return whether `user` may subscribe to `wire_name`. Malformed and public names are denied.

        Raises TypeError if a rule returns an unsupported value, and what rules raise.
        """
        return await settle(self.deciding(_always(user), wire_name))

    def decide_sync(self, user: object, wire_name: str) -> Decision:
        """Decide like `decide`, synchronously; async rules run in an event loop of their own.

        Raises RuntimeError for an async rule inside a running loop.
        """
        return settle_sync(self.deciding(_always(user), wire_name))

    def deciding(self, user_of: UserOf, wire_name: str) -> Steps[Decision]:
        """Return the steps of `decide`. `user_of` returns the user that one of the given guards knows, or None."""
        if not is_valid_channel(wire_name):
            return Decision(False, "not a channel name")
        kind = kind_of(wire_name)
        if not kind.needs_authorization:
            return Decision(False, f"{kind.value} channels have no rules")
        name = name_without_prefix(wire_name)
        prefix = wire_name[: len(wire_name) - len(name)]
        why, decided_by = "no rule matches", None
        for rule in self._rules:
            values = rule.matches(name) if kind in rule.kinds else None
            if values is None:
                continue
            decided_by = prefix + rule.pattern
            user = yield from user_of(rule.guards)
            if user is None:
                why = f"no user of {', '.join(rule.guards)}"
                continue
            missing = yield from _load(rule, values)
            if missing is not None:
                return Decision(False, missing, decided_by)
            answer = yield rule.function(user, **values)
            if answer is not None:
                return _decision(answer, decided_by, kind, user)
            why = "the rule left it open, and no other matches"
        return Decision(False, why, decided_by)

    def _adder(self, pattern: str, kinds: frozenset[ChannelKind], guards: Sequence[str]) -> Callable[[Rule], Rule]:
        if not isinstance(pattern, str):
            raise TypeError(f'a rule needs a pattern first: @rules.private("orders.{{order_id}}"), not {pattern!r:.80}')
        if isinstance(guards, str):
            raise TypeError(f"guards is a list of names: guards=[{guards!r}]")

        def add(function: Rule) -> Rule:
            for rule in self._rules:
                if rule.pattern == pattern and rule.kinds & kinds and set(rule.guards) == set(guards):
                    raise ValueError(f"{pattern!r} already has a rule: {_name_of(rule.function)}")
            self._rules.append(self._compiled(pattern, kinds, tuple(guards), function))
            return function

        return add

    def _compiled(
        self, pattern: str, kinds: frozenset[ChannelKind], guards: tuple[str, ...], function: object
    ) -> ChannelRule:
        if pattern != name_without_prefix(pattern):
            raise ValueError(f"{pattern!r}: leave the prefix out; private(), presence() and any() add it")
        pieces = _PLACEHOLDER.split(pattern)
        literals, names, takes_dots = pieces[0::3], pieces[1::3], pieces[2::3]
        if not pattern or not all(_LITERAL.match(piece) for piece in literals):
            raise ValueError(
                f"{pattern!r} has characters not allowed in channel names; placeholders look like {{user_id}}"
            )
        if len(set(names)) != len(names) or any(not piece for piece in literals[1:-1]):
            raise ValueError(f"{pattern!r}: placeholders need different names, and something between them")
        if len(takes_dots) - takes_dots.count(None) > 1:
            raise ValueError(f"{pattern!r}: two placeholders with :path are ambiguous; use one")
        decide = _callable(function)
        annotations = _annotations(decide, pattern, names)
        placeholders = {name: self._placeholder(annotations[name], pattern, name) for name in names}
        parts = [re.escape(literals[0])]
        for name, dots, following in zip(names, takes_dots, literals[1:], strict=True):
            if dots and placeholders[name].kind is not str:
                raise ValueError(
                    f"{pattern!r}: a placeholder with :path gives text; annotate {name} as str, or leave :path out"
                )
            form = _WITH_DOTS if dots else _FORMS[placeholders[name].kind]
            parts.append(f"(?P<{name}>{form}){re.escape(following)}")
        return ChannelRule(pattern, kinds, decide, guards, re.compile("".join(parts)), placeholders)

    def _placeholder(self, annotation: Any, pattern: str, name: str) -> _Placeholder:
        if (kind := _plain_kind(annotation)) is not None:
            return _Placeholder(kind)
        for loaded, load in self._loaders.items():
            if annotation is loaded or (isinstance(annotation, str) and _last(annotation) == loaded.__name__):
                argument = next(iter(inspect.signature(load).parameters.values()), None)
                kind = None if argument is None else _plain_kind(argument.annotation)
                if kind is None:
                    raise ValueError(f"the loader of {loaded.__name__} takes one value: text, an int or a UUID")
                return _Placeholder(kind, load, loaded.__name__)
        raise ValueError(
            f"the rule of {pattern!r}: {name} is annotated {annotation!r}; use str, int or UUID, or add a "
            "loader first: rules.resolve(Order, load_order)"
        )


def _always(user: object) -> UserOf:
    def user_of(_: Sequence[str]) -> Steps[Any]:
        return user
        yield

    return user_of


def _load(rule: ChannelRule, values: dict[str, object]) -> Steps[str | None]:
    """Replace placeholders' text with loaded objects; return the reason if one is not found."""
    for parameter, placeholder in rule.placeholders.items():
        if placeholder.load is not None:
            found = yield placeholder.load(values[parameter])
            if found is None:
                return f"there is no {placeholder.of} {values[parameter]}"
            values[parameter] = found
    return None


def _decision(answer: object, rule: str, kind: ChannelKind, user: object) -> Decision:
    if answer is True:
        return Decision(True, "the rule says yes", rule, user=user)
    if answer is False:
        return Decision(False, "the rule says no", rule, user=user)
    if isinstance(answer, Grant):
        return _granted(answer, rule, kind, user)
    if isinstance(answer, Member):
        return Decision(True, "the rule names the member", rule, member=answer, user=user)
    if isinstance(answer, Mapping):
        info = answer if kind is ChannelKind.PRESENCE else None
        return Decision(True, "the rule describes the member", rule, info=info, user=user)
    raise TypeError(
        f"the rule of {rule} returned {type(answer).__name__}; return True, False, None, a mapping, a Member or a Grant"
    )


def _granted(grant: Grant, rule: str, kind: ChannelKind, user: object) -> Decision:
    now = time.time()
    ends_at = grant.ends_at(now)
    if ends_at is not None and ends_at <= now:
        return Decision(False, "the rule's Grant has expired", rule, user=user)
    info = grant.info if kind is ChannelKind.PRESENCE else None
    why = "the rule says yes" if ends_at is None else "the rule says yes until a time"
    return Decision(True, why, rule, grant.member, info, user, ends_at)


def _callable(rule: Any) -> Callable[..., object]:
    """Return a rule's function: for a class, or an instance, its `join`. Raises TypeError if there is none."""
    if inspect.isroutine(rule):
        return rule
    join: object = getattr(rule() if inspect.isclass(rule) else rule, "join", rule)
    if not callable(join):
        raise TypeError(f"a rule is a function, or a class with a method join, not {rule!r:.80}")
    return join


def _annotations(function: Callable[..., object], pattern: str, names: list[str]) -> dict[str, Any]:
    parameters = list(inspect.signature(function).parameters.values())
    if not parameters or parameters[0].kind not in (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
    ):
        raise ValueError(f"the rule of {pattern!r} takes the user first")
    known = {parameter.name: parameter for parameter in parameters[1:]}
    wanted = {name for name, parameter in known.items() if parameter.default is inspect.Parameter.empty}
    if not set(names) <= set(known) or not wanted <= set(names):
        raise ValueError(
            f"the rule of {pattern!r} takes (user, {', '.join(names)}), but {_name_of(function)} takes "
            f"{inspect.signature(function)}"
        )
    return {name: known[name].annotation for name in names}


def _plain_kind(annotation: Any) -> type | None:
    # Postponed annotations are strings; comparing names avoids evaluating them.
    if annotation in (str, "str", inspect.Parameter.empty):
        return str
    if annotation in (int, "int"):
        return int
    if annotation is UUID or (isinstance(annotation, str) and _last(annotation) == "UUID"):
        return UUID
    return None


def _last(annotation: str) -> str:
    return annotation.strip("'\"").rpartition(".")[2]


def _name_of(function: Callable[..., object]) -> str:
    return getattr(function, "__qualname__", repr(function))
