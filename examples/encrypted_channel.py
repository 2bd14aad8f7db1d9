"""An encrypted channel: the realtime server carries what it cannot read. Subscribers get its secret.

Set BROADCAST_ENCRYPTION_MASTER_KEY (32 random bytes in base64), for this and nothing else:
python -c "import base64, secrets; print(base64.b64encode(secrets.token_bytes(32)).decode())"
"""

import os
from typing import Annotated

import uvicorn
from fastapi import FastAPI, Header

from smartlink.broadcasting import Broadcasting, BroadcastNow, EncryptedPrivateChannel

broadcasting = Broadcasting.from_env()


class ResultReady(BroadcastNow):
    patient_id: int
    haemoglobin: str
    channel = EncryptedPrivateChannel("health.{patient_id}")

    def broadcast_as(self) -> str:
        return "result.ready"


@broadcasting.private("health.{patient_id}")
def patient(user: int, patient_id: int) -> bool:
    return user == patient_id


async def current_user(authorization: Annotated[str, Header()] = "") -> int | None:
    return int(authorization) if authorization.isdigit() else None


app = FastAPI(lifespan=broadcasting.lifespan)
broadcasting.install(app, user=current_user)


@app.post("/patients/{patient_id}/results", status_code=202)
async def result(patient_id: int) -> dict[str, bool]:
    return {"told": await broadcasting.send_now(ResultReady(patient_id=patient_id, haemoglobin="13.8"))}


if __name__ == "__main__":
    uvicorn.run(app, port=int(os.environ.get("PORT", "9000")), log_level="warning")
