"""What is wrong with an SQLite file, in words that say what to do about it."""

from __future__ import annotations

from pathlib import Path

from samplewise.proxy.errors import StoreError

__all__ = ["ADVICE", "store_error"]

ADVICE = {
    "SQLITE_FULL": " The disk or a quota is full: free space.",
    "SQLITE_READONLY": " Make the file, its -wal and -shm and their folder writable for this user.",
    "PermissionError": " Use a folder that this user may read and write.",
    "SQLITE_CANTOPEN": " Check that file and folder exist and are writable for this user.",
    "SQLITE_BUSY": " Another process has locked it for too long: see which one has it open.",
    "SQLITE_IOERR": " The disk failed, or has no space: see the system log.",
    "SQLITE_CORRUPT": " The file is damaged: restore a backup.",
    "SQLITE_NOTADB": " The file is no SQLite database: name another one in `store`.",
}


def store_error(path: Path, error: Exception) -> StoreError:
    """Say what is wrong with the file at `path`, and what to do about it."""
    if isinstance(error, StoreError):
        return error
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    advice = next((text for start, text in ADVICE.items() if name.startswith(start)), "")
    said = StoreError(f"The ledger {path} cannot be used: {error} ({name}).{advice}")
    said.__cause__ = error
    return said
