"""Who may subscribe: a table of channel patterns, each with a rule. Denied unless a rule allows.

    rules = ChannelRules()

    @rules.private("user.{user_id}")
    def own_channel(user: User, user_id: int) -> bool:
        return user.id == user_id

A placeholder stands for one or more characters without a dot, or, where the rule's parameter is annotated `int`, for
a canonical decimal number: `7`, never `07`, `-7` or a digit of another script. The rule gets the value by name.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from smartlink.protocol.names import ChannelKind, is_valid_channel, kind_of

__all__ = ["ChannelRule", "ChannelRules", "Decision", "Member"]

_PLACEHOLDER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
_LITERAL = re.compile(r"[-a-zA-Z0-9_=@,.;]*\Z")
_MAX_INT = 2**63 - 1
_PREFIX = {ChannelKind.PRIVATE: "private-", ChannelKind.PRESENCE: "presence-"}

RuleFunction = TypeVar("RuleFunction", bound=Callable[..., object])


@dataclass(frozen=True, slots=True)
class Member:
    """A user on a presence channel: `id`, kept as text as the protocol has it, and what others may see of them."""

    id: str | int
    info: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if isinstance(self.id, bool) or not str(self.id):
            raise ValueError(f"a member's id is text or a number, not {self.id!r}")
        object.__setattr__(self, "id", str(self.id))


@dataclass(frozen=True, slots=True)
class Decision:
    """What the rules say about one user and one channel.

    `member` or `info` is set when the rule told who the user is on the channel, or what others may see of them;
    `rule` is the pattern that decided, None when none matched; `why` is for operators, not for the user.
    """

    allowed: bool
    why: str
    rule: str | None = None
    member: Member | None = None
    info: Mapping[str, object] | None = None


@dataclass(frozen=True, slots=True)
class ChannelRule:
    """A pattern, the kinds of channel it stands for, and the function that decides."""

    pattern: str
    kinds: frozenset[ChannelKind]
    function: Callable[..., object]
    matcher: re.Pattern[str]
    ints: frozenset[str]

    def matches(self, name: str) -> dict[str, object] | None:
        """The placeholders' values in `name`, a channel name without its prefix; None when it does not match."""
        found = self.matcher.fullmatch(name)
        if found is None:
            return None
        values: dict[str, object] = dict(found.groupdict())
        for parameter in self.ints:
            number = int(found[parameter])
            if number > _MAX_INT:
                return None
            values[parameter] = number
        return values


class ChannelRules:
    """The table. Rules are tried in the order they were added; the first that says yes or no decides.

    A rule is a plain or async function of the user and the placeholders. True allows; False denies; None leaves it
    to the next rule that matches; on a presence channel a mapping (what others see) or a `Member` allows as well.
    """

    def __init__(self) -> None:
        self._rules: list[ChannelRule] = []

    @property
    def rules(self) -> tuple[ChannelRule, ...]:
        """The rules, in order."""
        return tuple(self._rules)

    def private(self, pattern: str) -> Callable[[RuleFunction], RuleFunction]:
        """A rule for `private-{pattern}`. Raises ValueError for a pattern that the function does not fit."""
        return self._adder(pattern, frozenset({ChannelKind.PRIVATE}))

    def presence(self, pattern: str) -> Callable[[RuleFunction], RuleFunction]:
        """A rule for `presence-{pattern}`. Raises ValueError for a pattern that the function does not fit."""
        return self._adder(pattern, frozenset({ChannelKind.PRESENCE}))

    def any(self, pattern: str) -> Callable[[RuleFunction], RuleFunction]:
        """A rule for both. Raises ValueError for a pattern that the function does not fit."""
        return self._adder(pattern, frozenset({ChannelKind.PRIVATE, ChannelKind.PRESENCE}))

    async def decide(self, user: object, wire_name: str) -> Decision:
        """Whether `user` may subscribe to `wire_name`. Malformed and public names are denied, not errors.

        Raises TypeError when a rule gives something that is neither yes, no nor a member; and what rules raise.
        """
        if not is_valid_channel(wire_name):
            return Decision(False, "not a channel name")
        kind = kind_of(wire_name)
        prefix = _PREFIX.get(kind)
        if prefix is None:
            return Decision(False, f"{kind.value} channels have no rules")
        name = wire_name[len(prefix) :]
        why, decided_by = "no rule matches", None
        for rule in self._rules:
            values = rule.matches(name) if kind in rule.kinds else None
            if values is None:
                continue
            answer = rule.function(user, **values)
            if inspect.isawaitable(answer):
                answer = await answer
            decided_by = prefix + rule.pattern
            if answer is not None:
                return _decision(answer, decided_by, kind)
            why = "the rule left it open, and no other matches"
        return Decision(False, why, decided_by)

    def _adder(self, pattern: str, kinds: frozenset[ChannelKind]) -> Callable[[RuleFunction], RuleFunction]:
        def add(function: RuleFunction) -> RuleFunction:
            for rule in self._rules:
                if rule.pattern == pattern and rule.kinds & kinds:
                    raise ValueError(f"{pattern!r} has a rule already: {_name_of(rule.function)}")
            self._rules.append(_compiled(pattern, kinds, function))
            return function

        return add


def _decision(answer: object, rule: str, kind: ChannelKind) -> Decision:
    if answer is True:
        return Decision(True, "the rule says yes", rule)
    if answer is False:
        return Decision(False, "the rule says no", rule)
    if isinstance(answer, Member):
        return Decision(True, "the rule names the member", rule, member=answer)
    if isinstance(answer, Mapping):
        info = answer if kind is ChannelKind.PRESENCE else None
        return Decision(True, "the rule describes the member", rule, info=info)
    raise TypeError(f"the rule of {rule} gave {type(answer).__name__}; give True, False, None, a mapping or a Member")


def _compiled(pattern: str, kinds: frozenset[ChannelKind], function: Callable[..., object]) -> ChannelRule:
    if pattern.startswith(("private-", "presence-")):
        raise ValueError(f"{pattern!r}: leave the prefix out; private(), presence() and any() say it")
    pieces = _PLACEHOLDER.split(pattern)
    literals, names = pieces[0::2], pieces[1::2]
    if not pattern or not all(_LITERAL.match(piece) for piece in literals):
        raise ValueError(f"{pattern!r} has characters that no channel name has; placeholders look like {{user_id}}")
    if len(set(names)) != len(names) or any(not piece for piece in literals[1:-1]):
        raise ValueError(f"{pattern!r}: placeholders need different names, and something between them")
    kinds_of_values = _annotations(function, pattern, names)
    parts = [re.escape(literals[0])]
    for name, following in zip(names, literals[1:], strict=True):
        form = "0|[1-9][0-9]{0,18}" if kinds_of_values[name] is int else "[^.]+"
        parts.append(f"(?P<{name}>{form}){re.escape(following)}")
    ints = frozenset(name for name, kind in kinds_of_values.items() if kind is int)
    return ChannelRule(pattern, kinds, function, re.compile("".join(parts)), ints)


def _annotations(function: Callable[..., object], pattern: str, names: list[str]) -> dict[str, type]:
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
    return {name: _value_type(known[name].annotation, pattern, name) for name in names}


def _value_type(annotation: Any, pattern: str, name: str) -> type:
    # Annotations are text where a module postpones them; only two are known, so nothing need be evaluated.
    if annotation in (int, "int"):
        return int
    if annotation in (str, "str", inspect.Parameter.empty):
        return str
    raise ValueError(f"the rule of {pattern!r}: {name} is annotated {annotation!r}; use int or str")


def _name_of(function: Callable[..., object]) -> str:
    return getattr(function, "__qualname__", repr(function))
