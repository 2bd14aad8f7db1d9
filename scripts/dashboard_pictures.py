"""Takes the pictures of the dashboard in docs/dashboard: desk and phone, light and dark, one file a page.

.venv/bin/python scripts/dashboard_pictures.py [FOLDER]
"""

from __future__ import annotations

import asyncio
import base64
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from playwright.async_api import Browser, ViewportSize, expect  # noqa: E402 — from the tests

from kit.chromium import chromium  # noqa: E402 — from the tests
from kit.client import connected  # noqa: E402 — from the tests
from kit.dashboard import Dashboard, dashboard  # noqa: E402 — from the tests

DESK: ViewportSize = {"width": 1180, "height": 860}
PHONE: ViewportSize = {"width": 390, "height": 860}
CHARTED_S = 25.0
"""Until charts have a few points."""
PAGES = {
    "overview": "", "connections": "connections", "connection": "connections/{socket}", "channels": "channels",
    "channel": "channels/cache-prices", "console": "console", "webhooks": "webhooks", "apps": "apps", "nodes": "nodes",
}  # fmt: skip


async def activity(shown: Dashboard) -> None:
    """Events now and then, and clients that come and go."""
    number = 0
    while True:
        number += 1
        await shown.publish("private-orders.7", "OrderPlaced", f'{{"order":{number},"total":"19.90"}}')
        if number % 5 == 0:
            async with connected(shown.server.port, query="protocol=7&client=js&version=8.4.0") as client:
                await client.subscribe("private-orders.7")
        await asyncio.sleep(0.4)


async def shot(browser: Browser, shown: Dashboard, path: str, size: ViewportSize, scheme: str) -> bytes:
    context = await browser.new_context(
        viewport=size, color_scheme="dark" if scheme == "dark" else "light", reduced_motion="reduce"
    )
    page = await context.new_page()
    await page.goto(f"{shown.url}#/{path}")
    await expect(page.get_by_role("heading", level=1)).to_be_visible()
    await expect(page.locator(".bones")).to_have_count(0)
    if path == "console" or path.startswith("connections/"):
        await expect(page.get_by_test_id("console").locator("li").nth(5)).to_be_visible()
    if path == "":
        await expect(page.locator(".u-wrap").first).to_be_visible()
    picture = await page.screenshot()
    await context.close()
    return picture


async def main(folder: Path) -> None:
    async with dashboard() as shown, chromium() as browser:
        doing = asyncio.create_task(activity(shown))
        await asyncio.sleep(CHARTED_S)
        for name, path in PAGES.items():
            path = path.format(socket=shown.clients[0].socket_id)
            pictures = [
                await shot(browser, shown, path, size, scheme) for size in (DESK, PHONE) for scheme in ("light", "dark")
            ]
            encoded = [base64.b64encode(picture).decode() for picture in pictures]
            tags = "".join(f"<img src='data:image/png;base64,{each}' height=430>" for each in encoded)
            sheet = await browser.new_page(viewport={"width": 1622, "height": 450})
            await sheet.set_content(
                f"<style>body{{margin:10px;display:flex;gap:10px;background:#777}}img{{display:block}}</style>{tags}"
            )
            await sheet.screenshot(path=folder / f"{name}.png")
            await sheet.close()
        doing.cancel()
        await asyncio.gather(doing, return_exceptions=True)


if __name__ == "__main__":
    chosen = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs/dashboard"
    chosen.mkdir(parents=True, exist_ok=True)
    asyncio.run(main(chosen))
