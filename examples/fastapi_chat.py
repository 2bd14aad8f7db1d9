"""Chat in 40 lines: run this, then open http://127.0.0.1:9000 twice."""

import os
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from fastapi.responses import HTMLResponse

from smartlink.broadcasting import Broadcasting, BroadcastNow, Channel

broadcasting = Broadcasting.from_env(embedded=True)


@dataclass(frozen=True)  # FastAPI reads it as a request's body
class MessageSent(BroadcastNow):
    text: str
    channel = Channel("chat")


app = FastAPI(lifespan=broadcasting.lifespan)
broadcasting.install(app)


@app.post("/messages", status_code=204)
async def say(message: MessageSent) -> None:
    await broadcasting.send_now(message, to_others=True)


@app.get("/", response_class=HTMLResponse)
def page() -> str:
    settings = broadcasting.settings
    scheme = "wss" if settings.reverb_scheme == "https" else "ws"
    url = f"{scheme}://{settings.reverb_host}:{settings.reverb_port}/app/{settings.reverb_app_key}?protocol=7"
    return Path(__file__).with_suffix(".html").read_text().replace("{url}", url)


if __name__ == "__main__":
    uvicorn.run(app, port=int(os.environ.get("PORT", "9000")), log_level="warning")
