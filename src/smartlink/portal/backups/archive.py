"""The format of a backup: a tar of `manifest.json` and `database`, readable only by its owner.

`database` is in the database's own format, a SQLite file or pg_dump's custom format, so a backup can be restored
with `tar -xf` and standard tools.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import msgspec

__all__ = ["BackupFailed", "Manifest", "read", "read_manifest", "write"]

FORMAT = 1
MAX_MANIFEST_BYTES = 65_536
_CHUNK = 1 << 20
_MANIFEST, _DATABASE = "manifest.json", "database"


class BackupFailed(Exception):
    """A backup cannot be taken or restored; the message says why and what to do."""


class Manifest(msgspec.Struct, frozen=True):
    """A backup's description. `kind` is `sqlite` or `postgresql`; `sha256` and `bytes` are of its database."""

    format: int
    kind: str
    revision: str
    taken_at: dt.datetime
    last_event_id: int
    server: str
    sha256: str = ""
    bytes: int = 0


def write(target: Path, database: Path, manifest: Manifest) -> Manifest:
    """Write `database` to the new file `target`, atomically. Returns the manifest with size and checksum.

    Raises BackupFailed if `target` exists.
    """
    whole = msgspec.structs.replace(manifest, sha256=_sha256(database), bytes=database.stat().st_size)
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
                text = msgspec.json.format(msgspec.json.encode(whole), indent=2)
                tar.addfile(_member(_MANIFEST, len(text), whole.taken_at), io.BytesIO(text))
                with database.open("rb") as data:
                    tar.addfile(_member(_DATABASE, whole.bytes, whole.taken_at), data)
            file.flush()
            os.fsync(file.fileno())
        # A link, unlike a rename, never replaces a file created meanwhile.
        os.link(temporary, target)
    except FileExistsError:
        raise BackupFailed(f"{target} already exists. Give another name, or a folder.") from None
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(target.parent)
    return whole


def read_manifest(source: Path) -> Manifest:
    """Return the backup's manifest. Raises BackupFailed if the file is not a backup."""
    with _opened(source) as tar:
        return _manifest(source, tar)


def read(source: Path, database: Path) -> Manifest:
    """Extract the backup's database to the new file `database` and verify it. Raises BackupFailed."""
    with _opened(source) as tar:
        manifest = _manifest(source, tar)
        member = tar.next()
        if (
            member is None
            or member.name != _DATABASE
            or not member.isreg()
            or (data := tar.extractfile(member)) is None
        ):
            raise BackupFailed(f"{source} is not a backup: it contains no database.")
        digest = hashlib.sha256()
        descriptor = os.open(database, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            while chunk := data.read(_CHUNK):
                digest.update(chunk)
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
    if digest.hexdigest() != manifest.sha256 or database.stat().st_size != manifest.bytes:
        raise BackupFailed(f"{source} is damaged: its database does not match the checksum. Use another backup.")
    return manifest


@contextlib.contextmanager
def _opened(source: Path) -> Iterator[tarfile.TarFile]:
    try:
        with tarfile.open(source, "r:") as tar:
            yield tar
    except FileNotFoundError:
        raise BackupFailed(f"{source} does not exist.") from None
    except IsADirectoryError:
        raise BackupFailed(f"{source} is a folder: name one of the backups in it.") from None
    except (tarfile.TarError, EOFError):
        raise BackupFailed(f"{source} is damaged, or not a backup.") from None


def _manifest(source: Path, tar: tarfile.TarFile) -> Manifest:
    member = tar.next()
    if (
        member is None
        or member.name != _MANIFEST
        or member.size > MAX_MANIFEST_BYTES
        or (file := tar.extractfile(member)) is None
    ):
        raise BackupFailed(f"{source} is not a backup: it does not start with a manifest.")
    try:
        manifest = msgspec.json.decode(file.read(), type=Manifest)
    except msgspec.MsgspecError:
        raise BackupFailed(f"{source} is not a backup: its manifest is invalid.") from None
    if manifest.format != FORMAT:
        raise BackupFailed(f"{source} has format {manifest.format}, but this version reads {FORMAT}. Use a newer one.")
    if manifest.taken_at.tzinfo is None:
        raise BackupFailed(f"{source} is not a backup: its time has no time zone.")
    return manifest


def _member(name: str, size: int, at: dt.datetime) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.mtime = size, 0o600, int(at.timestamp())
    return member


def _sha256(file: Path) -> str:
    with file.open("rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
