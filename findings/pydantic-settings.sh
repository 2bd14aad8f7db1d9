#!/usr/bin/env bash
# AliasChoices("FIRST", "SECOND"): does FIRST win wherever it is set?
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
python3 -m venv venv
venv/bin/pip install -q --disable-pip-version-check pydantic-settings==2.11.0 pydantic==2.12.3
cat > tried.py <<'EOF'
import importlib.metadata, os, pathlib
from pydantic import AliasChoices, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_file=".env", extra="ignore")
    port: int = Field(1, validation_alias=AliasChoices("FIRST", "SECOND"))

def read(environment: dict[str, str], file: str) -> int:
    for name in ("FIRST", "SECOND"):
        os.environ.pop(name, None)
    os.environ.update(environment)
    pathlib.Path(".env").write_text(file)
    return Settings().port

print("pydantic-settings", importlib.metadata.version("pydantic-settings"))
same_source = read({"FIRST": "10", "SECOND": "20"}, "")
across = read({"SECOND": "20"}, "FIRST=10\n")
print(f"both in the environment: {same_source}   guessed: 10")
print(f"SECOND in the environment, FIRST in .env: {across}   guessed: 10, the first name")
assert (same_source, across) == (10, 20), "this has changed"
EOF
env -u FIRST -u SECOND venv/bin/python tried.py
