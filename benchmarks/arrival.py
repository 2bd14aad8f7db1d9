"""From `POST /api/chat/messages` to the frame in another browser: whole system in one process, two real Chromium pages.

Both ends are the browser's own clock on one machine. Bounded: 60 messages, one every 600 ms (20 per 10 s are allowed).

usage: .venv/bin/python benchmarks/arrival.py
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from kit.chromium import chromium
from kit.serve import Smartlink

MESSAGES = 60
LISTEN = """({port, key}) => new Promise(done => {
  window.arrivals = {};
  const socket = new WebSocket(`ws://127.0.0.1:${port}/app/${key}?protocol=7&client=bench&version=1`);
  socket.onmessage = ({data}) => {
    const at = performance.timeOrigin + performance.now();
    const frame = JSON.parse(data);
    if (frame.event === 'pusher:connection_established')
      socket.send(JSON.stringify({event: 'pusher:subscribe', data: {channel: 'chat'}}));
    else if (frame.event === 'pusher_internal:subscription_succeeded') done(true);
    else if (frame.event.endsWith('MessageSent')) window.arrivals[JSON.parse(frame.data).message.message] = at;
  };
})"""
POST = """async text => {
  const token = decodeURIComponent(document.cookie.match(/XSRF-TOKEN=([^;]+)/)[1]);
  const at = performance.timeOrigin + performance.now();
  const answer = await fetch('/api/chat/messages', {method: 'POST', body: JSON.stringify({message: text}),
    headers: {'Content-Type': 'application/json', 'X-XSRF-TOKEN': token}});
  return answer.status === 201 ? at : null;
}"""


async def measure(smartlink: Smartlink) -> list[float]:
    async with chromium() as browser:
        reader, writer = await (await browser.new_context()).new_page(), await (await browser.new_context()).new_page()
        for page, name in ((reader, "ben"), (writer, "ana")):
            await page.goto(smartlink.url)
            await page.get_by_test_id("login-email").fill(f"{name}@example.com")
            await page.get_by_test_id("login-password").fill("password")
            await page.get_by_test_id("login-submit").click()
            await page.get_by_role("log").wait_for()
        await reader.evaluate(LISTEN, {"port": smartlink.realtime_port, "key": "app-key"})
        sent: dict[str, float] = {}
        for number in range(MESSAGES):
            at = await writer.evaluate(POST, f"message {number}")
            if at is not None:
                sent[f"message {number}"] = at
            await asyncio.sleep(0.6)
        arrivals = await reader.evaluate("window.arrivals")
        await browser.close()
    missing = sent.keys() - arrivals.keys()
    if missing:
        sys.exit(f"not arrived: {sorted(missing)}")
    return sorted(arrivals[text] - at for text, at in sent.items())


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        smartlink = Smartlink(Path(folder))
        smartlink.start()
        try:
            trips = asyncio.run(measure(smartlink))
        finally:
            smartlink.stop()
    p50, p95 = statistics.median(trips), trips[int(len(trips) * 0.95)]
    print(f"{len(trips)} messages: p50 {p50:.1f} ms, p95 {p95:.1f} ms, max {trips[-1]:.1f} ms")


if __name__ == "__main__":
    main()
