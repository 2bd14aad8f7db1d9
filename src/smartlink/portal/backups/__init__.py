"""Backups of the database: taken while everything runs, verified before they replace anything.

All functions raise BackupFailed, whose message says what to do.
"""

from smartlink.portal.backups.archive import BackupFailed, Manifest
from smartlink.portal.backups.operations import backup, restore

__all__ = ["BackupFailed", "Manifest", "backup", "restore"]
