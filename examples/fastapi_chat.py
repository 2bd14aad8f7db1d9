"""Chat in 50 lines: start `smartlink reverb start` and this, then open http://127.0.0.1:9000 twice."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from fastapi.responses import HTMLResponse

from smartlink.broadcasting import Broadcaster, BroadcastEvent, BroadcastSettings, Channel, SocketIdMiddleware

settings = BroadcastSettings()
broadcaster = Broadcaster.from_settings(settings)


@dataclass(frozen=True)
class MessageSent(BroadcastEvent):
    text: str

    def broadcast_on(self) -> Channel:
        return Channel("chat")


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    async with broadcaster:
        yield


app = FastAPI(lifespan=lifespan)
app.add_middleware(SocketIdMiddleware)


@app.post("/messages", status_code=204)
async def say(message: MessageSent) -> None:
    await broadcaster.send(message, to_others=True)


@app.get("/", response_class=HTMLResponse)
def page() -> str:
    scheme = "wss" if settings.reverb_scheme == "https" else "ws"
    url = f"{scheme}://{settings.reverb_host}:{settings.reverb_port}/app/{settings.reverb_app_key}?protocol=7"
    return Path(__file__).with_suffix(".html").read_text().replace("{url}", url)


if __name__ == "__main__":
    uvicorn.run(app, port=int(os.environ.get("PORT", "9000")), log_level="warning")
