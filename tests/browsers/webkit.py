"""WebKit (the engine of Safari, here as WebKitGTK's MiniBrowser) over classic WebDriver, on a virtual screen."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import httpx2

from browsers.process import ended, started
from browsers.screen import Screen
from browsers.window import Window
from kit.ports import free_port
from kit.waiting import LIMIT_S

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"


class WebKit(Window):
    def __init__(self, process: asyncio.subprocess.Process, http: httpx2.AsyncClient) -> None:
        self.process = process
        self._http = http
        self._session = ""

    @classmethod
    async def start(cls, driver: str, browser: str, screen: Screen, folder: Path) -> WebKit:
        port = free_port()
        environment = os.environ | {"DISPLAY": screen.display, "LANG": "en_US.UTF-8", "LC_ALL": "en_US.UTF-8"}
        process, _ = await started([driver, f"--port={port}", "--host=127.0.0.1"], None, folder, environment)
        http = httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=LIMIT_S, trust_env=False)
        window = cls(process, http)
        try:
            options = {"binary": browser, "args": ["--automation"]}
            made = await window._first_session({"alwaysMatch": {"webkitgtk:browserOptions": options}})
            window._session = f"/session/{made['sessionId']}"
            window.engine = f"WebKit ({made['capabilities']['browserName']} {made['capabilities']['browserVersion']})"
            await window._tell("POST", "/window/rect", {"x": 0, "y": 0, "width": 1280, "height": 860})
        except BaseException:
            await http.aclose()
            await ended(process)
            raise
        return window

    async def _first_session(self, capabilities: dict[str, Any]) -> Any:
        async with asyncio.timeout(LIMIT_S):
            while True:
                try:
                    return await self._tell("POST", "/session", {"capabilities": capabilities})
                except httpx2.ConnectError:
                    await asyncio.sleep(0.05)

    async def _tell(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        answer = await self._http.request(method, self._session + path, json=body)
        value = answer.json()["value"]
        assert answer.status_code == 200, value
        return value

    async def open(self, url: str) -> None:
        await self._tell("POST", "/url", {"url": url})

    async def evaluate(self, expression: str) -> Any:
        return await self._tell("POST", "/execute/sync", {"script": f"return {expression}", "args": []})

    async def element(self, css: str) -> Any:
        found = await self._tell("POST", "/element", {"using": "css selector", "value": css})
        return {ELEMENT: found[ELEMENT]}

    async def act(self, *sources: dict[str, Any]) -> None:
        await self._tell("POST", "/actions", {"actions": list(sources)})

    async def close(self) -> None:
        try:
            await self._tell("DELETE", "")
        finally:
            await self._http.aclose()
            await ended(self.process)
