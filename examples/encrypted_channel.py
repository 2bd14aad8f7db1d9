"""An encrypted channel: the realtime server carries what it cannot read. Subscribers get its secret.

Set BROADCAST_ENCRYPTION_MASTER_KEY (32 random bytes in base64), for this and nothing else:
python -c "import base64, secrets; print(base64.b64encode(secrets.token_bytes(32)).decode())"
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import uvicorn
from fastapi import FastAPI, Header

from smartlink.broadcasting import Broadcaster, ChannelAuthorizer, ChannelRules, EncryptedPrivateChannel, Member
from smartlink.broadcasting.integrations.fastapi import broadcasting_router

broadcaster = Broadcaster.from_settings()
rules = ChannelRules()


@rules.private("health.{patient_id}")
def patient(user: int, patient_id: int) -> bool:
    return user == patient_id


async def current_user(authorization: Annotated[str, Header()] = "") -> int | None:
    return int(authorization) if authorization.isdigit() else None


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    async with broadcaster:
        yield


app = FastAPI(lifespan=lifespan)
authorizer: ChannelAuthorizer[int] = ChannelAuthorizer.from_settings(rules, lambda user: Member(user))
app.include_router(broadcasting_router(authorizer, current_user), prefix="/broadcasting")


@app.post("/patients/{patient_id}/results", status_code=202)
async def result(patient_id: int) -> dict[str, str]:
    channel = EncryptedPrivateChannel(f"health.{patient_id}")
    await broadcaster.on(channel).as_("result.ready").with_({"haemoglobin": "13.8"}).send()
    return {"status": "told"}


if __name__ == "__main__":
    uvicorn.run(app, port=int(os.environ.get("PORT", "9000")), log_level="warning")
