"""Firefox over WebDriver BiDi, which it speaks itself: no driver stands between."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from browsers.process import ended, started
from browsers.window import Window
from kit.waiting import LIMIT_S

PREFERENCES = {
    "app.update.enabled": False,
    "browser.shell.checkDefaultBrowser": False,
    "browser.startup.page": 0,
    "datareporting.policy.dataSubmissionEnabled": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "toolkit.telemetry.enabled": False,
}


class Firefox(Window):
    def __init__(self, process: asyncio.subprocess.Process, socket: ClientConnection) -> None:
        self.process = process
        self._socket = socket
        self._numbers = itertools.count(1)
        self._context = ""

    @classmethod
    async def start(cls, binary: str, folder: Path) -> Firefox:
        profile = folder / "profile"
        profile.mkdir()
        lines = (f"user_pref({json.dumps(name)}, {json.dumps(value)});\n" for name, value in PREFERENCES.items())
        (profile / "user.js").write_text("".join(lines))
        command = [binary, "--headless", "--no-remote", "--remote-debugging-port", "0", "--profile", str(profile)]
        process, found = await started(command, re.compile(r"WebDriver BiDi listening on (ws://\S+)"), folder)
        try:
            socket = await connect(f"{found[1]}/session", proxy=None, max_size=None)
            window = cls(process, socket)
            made = await window._tell("session.new", {"capabilities": {}})
            window.engine = f"Firefox {made['capabilities']['browserVersion']}"
            window._context = (await window._tell("browsingContext.getTree", {}))["contexts"][0]["context"]
            size = {"width": 1280, "height": 800}
            await window._tell("browsingContext.setViewport", {"context": window._context, "viewport": size})
        except BaseException:
            await ended(process)
            raise
        return window

    async def _tell(self, method: str, parameters: dict[str, Any]) -> Any:
        number = next(self._numbers)
        await self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        async with asyncio.timeout(LIMIT_S):
            while True:
                answer = json.loads(await self._socket.recv())
                if answer.get("id") == number:
                    break
        assert answer["type"] == "success", answer
        return answer["result"]

    async def open(self, url: str) -> None:
        await self._tell("browsingContext.navigate", {"context": self._context, "url": url, "wait": "complete"})
        # A window that nobody sits before never has the focus, and a message is read only by who looks at it.
        await self._run("document.hasFocus = () => true, window.dispatchEvent(new Event('focus')), 0")

    async def _run(self, expression: str) -> Any:
        answer = await self._tell(
            "script.evaluate",
            {"expression": expression, "target": {"context": self._context}, "awaitPromise": True},
        )
        assert answer["type"] == "success", answer["exceptionDetails"]["text"]
        return answer["result"]

    async def evaluate(self, expression: str) -> Any:
        result = await self._run(f"JSON.stringify({expression}) ?? 'null'")
        return json.loads(result["value"])

    async def element(self, css: str) -> Any:
        found = await self._run(f"document.querySelector({json.dumps(css)})")
        assert found["type"] == "node", f"{self.engine}: no {css}"
        return {"type": "element", "element": {"sharedId": found["sharedId"]}}

    async def act(self, *sources: dict[str, Any]) -> None:
        await self._tell("input.performActions", {"context": self._context, "actions": list(sources)})

    async def close(self) -> None:
        await self._socket.close()
        await ended(self.process)
