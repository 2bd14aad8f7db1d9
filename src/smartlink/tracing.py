"""OpenTelemetry traces. Without `opentelemetry-api`, or without an SDK that was set up, nothing is done.

A trace goes from the request that announced an event over the outbox, where its context is recorded with the event, and
the publishing call, to the fan-out on each node. Contexts travel as `traceparent`. Source: W3C, "Trace Context".
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from typing import Any, Final

_trace: Any
try:
    from opentelemetry import trace as _trace
except ImportError:
    _trace = None

__all__ = ["begin", "current", "is_on", "publishing", "traceparent"]

_TRACEPARENT: Final = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})\Z")


def is_on() -> bool:
    """Whether somebody set up an SDK."""
    return _trace is not None and not isinstance(_trace.get_tracer_provider(), _trace.ProxyTracerProvider)


def current() -> str | None:
    """The `traceparent` of the running span; None without one, or if tracing is off."""
    if not is_on():
        return None
    return _text(_trace.get_current_span().get_span_context())


def _text(context: Any) -> str | None:
    if not context.is_valid:
        return None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def _context(text: str | None) -> Any:
    """The span context of a `traceparent`; None if there is none or it is invalid."""
    found = _TRACEPARENT.match(text) if text else None
    if found is None:
        return None
    flags = _trace.TraceFlags(int(found[3], 16))
    context = _trace.SpanContext(int(found[1], 16), int(found[2], 16), is_remote=True, trace_flags=flags)
    return context if context.is_valid else None


def _parent(context: Any) -> Any:
    return None if context is None else _trace.set_span_in_context(_trace.NonRecordingSpan(context))


@contextlib.contextmanager
def publishing(traces: Sequence[str | None], **attributes: str | int) -> Iterator[None]:
    """A span around a call that carries recorded events with these contexts.

    It continues the trace of its events if they have one in common, and otherwise begins one that links to each.
    """
    contexts = [context for text in dict.fromkeys(traces) if (context := _context(text)) is not None] if is_on() else []
    if not contexts:
        yield
        return
    is_one = len({context.trace_id for context in contexts}) == 1
    with _tracer().start_as_current_span(
        "smartlink publish",
        context=_parent(contexts[0]) if is_one else None,
        kind=_trace.SpanKind.PRODUCER,
        links=[_trace.Link(context) for context in contexts],
        attributes=dict(attributes),
    ):
        yield


def begin(name: str, parent: str | None, *, is_server: bool = False, **attributes: str | int) -> Any:
    """Begin a span after the one of a `traceparent`, to be ended by `end()`.

    It does not become the current one: the server continues coroutines in other contexts. Returns None if tracing is
    off, or there is no valid parent.
    """
    context = _context(parent) if parent and is_on() else None
    if context is None:
        return None
    kind = _trace.SpanKind.SERVER if is_server else _trace.SpanKind.CONSUMER
    return _tracer().start_span(name, context=_parent(context), kind=kind, attributes=dict(attributes))


def traceparent(span: Any) -> str | None:
    """The `traceparent` of a span."""
    return _text(span.get_span_context())


def _tracer() -> Any:
    return _trace.get_tracer("smartlink")
