"""Reading a room to its beginning: pages render only the messages near the view."""

from __future__ import annotations

from playwright.async_api import Page

from kit.waiting import eventually_told

__all__ = ["arrives", "read_back_to"]

_SCROLL_UP = """log => {
  log.scrollBy(0, -log.clientHeight / 2);
  return [...log.querySelectorAll('[data-message]')]
    .map((one) => [Number(one.dataset.message), one.querySelector('.words').innerText]);
}"""

_LOOK_BACK = """async (log, text) => {
  const frame = () => new Promise(requestAnimationFrame);
  const toEnd = () => (log.scrollTop = log.scrollHeight);
  toEnd();
  for (let step = 0; step < 20; step++) {
    await frame();
    await frame();
    if ([...log.querySelectorAll('[data-message] .words')].some((one) => one.innerText === text)) return toEnd(), true;
    log.scrollBy(0, -log.clientHeight / 2);
  }
  return toEnd(), false;
}"""


async def arrives(page: Page, text: str) -> None:
    """Wait until the message `text` is in the room: others may have come with it, so that it is already out of view."""

    async def is_here() -> bool:
        # A click by Playwright would wait for a button that has just gone.
        await page.evaluate("document.querySelector('[data-testid=to-end]')?.click()")
        return bool(await page.get_by_role("log").evaluate(_LOOK_BACK, text))

    await eventually_told(is_here, what=f"{text} arrives")


async def read_back_to(page: Page, text: str) -> list[str]:
    """Scroll up until the message `text` comes into view; return all texts from there, in order, each message once."""
    seen: dict[int, str] = {}

    async def has_seen_it() -> bool:
        shown = await page.get_by_role("log").evaluate(_SCROLL_UP)
        ids = [message_id for message_id, _ in shown]
        assert ids == sorted(set(ids)), "out of order, or twice"
        seen.update(shown)
        return text in seen.values()

    await eventually_told(has_seen_it)
    first = next(message_id for message_id, words in seen.items() if words == text)
    return [seen[message_id] for message_id in sorted(seen) if message_id >= first]
