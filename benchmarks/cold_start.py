"""From an empty browser cache to a page that can be used: the chat of somebody who is signed in, on this machine.

Interactive means that the composer can be written in and the connection stands. Prints each run and the median.
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

LIMIT_MS = 1_500

#: Milliseconds since the navigation began, told by the page's own clock.
WATCH = """
window.__reached = {}
const look = () => {
  const reach = (name, is) => { if (is && !(name in window.__reached)) window.__reached[name] = performance.now() }
  reach('writable', document.querySelector('[data-testid=composer-input]'))
  reach('connected', document.querySelector('[data-testid=connection-state].connected'))
  if (Object.keys(window.__reached).length < 2) requestAnimationFrame(look)
}
look()
"""


async def cold_start(browser: Browser, url: str, state: Any) -> dict[str, float]:
    context = await browser.new_context(storage_state=state)
    await context.add_init_script(WATCH)
    page = await context.new_page()
    await page.goto(url)
    await page.wait_for_function("() => Object.keys(window.__reached).length === 2")
    reached: dict[str, float] = await page.evaluate("window.__reached")
    await context.close()
    return reached


async def measure(url: str, runs: int) -> None:
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
            reached.append(await cold_start(browser, url, state))
            print(f"run {run}: " + ", ".join(f"{name} {ms:.0f} ms" for name, ms in reached[-1].items()))
    for name in ("writable", "connected"):
        print(f"median {name}: {statistics.median(one[name] for one in reached):.0f} ms (at most {LIMIT_MS})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as folder:
        smartlink = Smartlink(Path(folder))
        smartlink.start()
        try:
            asyncio.run(measure(smartlink.url, runs))
        finally:
            smartlink.stop()


if __name__ == "__main__":
    main()
