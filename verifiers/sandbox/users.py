"""The user ids that programs run as: the same for all, or one for each that runs.

A user of its own can be sure of its number of processes, and is ended by its number.
"""

from __future__ import annotations

import contextlib
import pwd
import socket
from collections.abc import Iterable, Iterator
from typing import Protocol

from samplewise.verifiers.sandbox.base import SandboxUnavailable

__all__ = ["OWN_USERS", "OneUser", "OwnUsers", "Users"]

# Not given to anyone by Debian, its relatives or systemd.
OWN_USERS = range(60_600, 61_180)


class Users(Protocol):
    """Lends user ids to sandboxes."""

    def take(self) -> int:
        """Return the id for a new sandbox."""
        ...

    def give_back(self, user: int) -> None:
        """Take the id of a sandbox that is no more."""
        ...


class OneUser:
    """Every sandbox has the same id: other things keep them apart."""

    def __init__(self, user: int) -> None:
        self._user = user

    def take(self) -> int:
        """Return the id."""
        return self._user

    def give_back(self, user: int) -> None:
        """Keep nothing."""


class OwnUsers:
    """Every sandbox has an id that no other one on this machine has meanwhile.

    A socket with a name stands for each id, which the kernel takes back when the server is gone.
    """

    def __init__(self, ids: Iterable[int] = OWN_USERS) -> None:
        self._ids = tuple(ids)
        self._taken: dict[int, socket.socket] = {}

    def take(self) -> int:
        """Return an id; raises `SandboxUnavailable` when none is left."""
        for user in self._free():
            claim = socket.socket(socket.AF_UNIX)
            try:
                claim.bind(f"\0samplewise-user-{user}")
            except OSError:
                claim.close()
                continue
            self._taken[user] = claim
            return user
        raise SandboxUnavailable(
            f"the user ids {self._ids[0]} to {self._ids[-1]} are all in use on this machine"
        )

    def give_back(self, user: int) -> None:
        """Let others have the id."""
        self._taken.pop(user).close()

    def _free(self) -> Iterator[int]:
        for user in self._ids:
            if user in self._taken:
                continue
            with contextlib.suppress(KeyError):
                pwd.getpwuid(user)
                continue  # someone's
            yield user
