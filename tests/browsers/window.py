"""One browser window of one person, whichever engine draws it."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from typing import Any

from kit.waiting import LIMIT_S, eventually_told

ENTER = "\ue007"


class Window(ABC):
    """A page that is looked at and worked with. Clicks and keys are the browser's own input, not calls of scripts."""

    #: Name and version, as the browser tells them.
    engine: str = ""

    @abstractmethod
    async def open(self, url: str) -> None:
        """Go there; returns when the page has loaded."""

    @abstractmethod
    async def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression, as JSON."""

    @abstractmethod
    async def element(self, css: str) -> Any:
        """The first element that fits, in the words of the driver; AssertionError when there is none."""

    @abstractmethod
    async def act(self, *sources: dict[str, Any]) -> None:
        """Perform input actions (the same in WebDriver and WebDriver BiDi)."""

    @abstractmethod
    async def close(self) -> None:
        """End the browser; nothing of it stays."""

    async def press(self, keys: str) -> None:
        strokes = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        await self.act({"type": "key", "id": "keys", "actions": strokes})

    async def click(self, css: str) -> None:
        await self.sees(css)
        await self.evaluate(f"document.querySelector({json.dumps(css)}).scrollIntoView({{block: 'nearest'}})")
        there = {"type": "pointerMove", "x": 0, "y": 0, "origin": await self.element(css)}
        steps = [there, {"type": "pointerDown", "button": 0}, {"type": "pointerUp", "button": 0}]
        await self.act({"type": "pointer", "id": "mouse", "parameters": {"pointerType": "mouse"}, "actions": steps})

    async def write(self, css: str, text: str) -> None:
        await self.click(css)
        await self.press(text)

    async def sees(self, css: str, text: str = "", *, times: int | None = None, within_s: float = LIMIT_S) -> None:
        """Wait until elements that fit `css` and hold `text` are shown: at least one, or exactly `times`."""
        expression = (
            f"[...document.querySelectorAll({json.dumps(css)})].filter((one) => "
            f"one.textContent.includes({json.dumps(text)}) && one.getClientRects().length > 0).length"
        )

        async def is_seen() -> bool:
            found = await self.evaluate(expression)
            return bool(found > 0 if times is None else found == times)

        try:
            await eventually_told(is_seen, within_s=within_s)
        except AssertionError:
            shown = await self.evaluate("document.body.innerText")
            raise AssertionError(f"{self.engine}: no {css} with {text!r} (times: {times}) in:\n{shown}") from None
