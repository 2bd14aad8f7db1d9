"""From an empty browser cache to a page that can be used: the chat of somebody who is signed in, on this machine.

Interactive means that the composer can be written in and the connection stands. Prints each run and the median. With
`--slow`, over a phone's line: 400 kbit/s, and 400 ms until the first byte of each answer, of which it prints the size.

usage: benchmarks/cold_start.py [--runs 10] [--slow]
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from playwright.async_api import Browser

from kit.chromium import chromium
from kit.serve import Smartlink

LIMIT_MS, LIMIT_SLOW_MS = 1_500, 4_000
SLOW = {"offline": False, "latency": 400, "downloadThroughput": 50_000, "uploadThroughput": 50_000}

#: Milliseconds since the navigation began, told by the page's own clock.
WATCH = """
window.__reached = {}
const look = () => {
  const reach = (name, is) => { if (is && !(name in window.__reached)) window.__reached[name] = performance.now() }
  reach('first message', document.querySelector('[data-testid=message]'))
  reach('writable', document.querySelector('[data-testid=composer-input]'))
  reach('connected', document.querySelector('[data-testid=connection-state].connected'))
  if (Object.keys(window.__reached).length < 3) requestAnimationFrame(look)
}
look()
"""


async def cold_start(browser: Browser, url: str, state: Any, *, is_slow: bool) -> tuple[dict[str, float], float]:
    """Milliseconds until each point, and the kilobytes that came before the first message."""
    context = await browser.new_context(storage_state=state)
    await context.add_init_script(WATCH)
    page = await context.new_page()
    devtools = await context.new_cdp_session(page)
    await devtools.send("Network.enable")
    if is_slow:
        await devtools.send("Network.emulateNetworkConditions", SLOW)
    received = [0.0]

    def count(event: dict[str, Any]) -> None:
        received[0] += event["encodedDataLength"]

    devtools.on("Network.loadingFinished", count)
    await page.goto(url, wait_until="commit")
    await page.wait_for_function("() => 'first message' in window.__reached")
    before_first = received[0] / 1_000
    await page.wait_for_function("() => Object.keys(window.__reached).length === 3")
    reached: dict[str, float] = await page.evaluate("window.__reached")
    await context.close()
    return reached, before_first


async def measure(url: str, runs: int, *, is_slow: bool) -> None:
    async with chromium() as browser:
        context = await browser.new_context()
        page = await context.new_page()
        await page.goto(url)
        await page.get_by_test_id("login-email").fill("ana@example.com")
        await page.get_by_test_id("login-password").fill("password")
        await page.get_by_test_id("login-submit").click()
        await page.get_by_test_id("composer-input").wait_for()
        state = await context.storage_state()
        await context.close()
        reached = []
        for run in range(1, runs + 1):
            times, kilobytes = await cold_start(browser, url, state, is_slow=is_slow)
            reached.append(times)
            told = ", ".join(f"{name} {ms:.0f} ms" for name, ms in times.items())
            print(f"run {run}: {told}; {kilobytes:.0f} kB before the first message")
    for name in ("first message", "writable", "connected"):
        limit = LIMIT_MS if not is_slow else LIMIT_SLOW_MS if name == "first message" else None
        goal = "" if limit is None else f" (at most {limit})"
        print(f"median {name}: {statistics.median(one[name] for one in reached):.0f} ms{goal}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--slow", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        smartlink = Smartlink(Path(folder))
        smartlink.start()
        try:
            asyncio.run(measure(smartlink.url, options.runs, is_slow=options.slow))
        finally:
            smartlink.stop()


if __name__ == "__main__":
    main()
