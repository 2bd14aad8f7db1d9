"""Copies of the database: taken while everything runs, verified before they replace anything.

Raises BackupFailed for whatever stands in the way; its message says what to do.
"""

from smartlink.portal.backups.archive import BackupFailed, Manifest
from smartlink.portal.backups.operations import backup, restore

__all__ = ["BackupFailed", "Manifest", "backup", "restore"]
