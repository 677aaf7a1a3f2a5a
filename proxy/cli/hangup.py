"""What SIGHUP means: read the configuration again, or the terminal of the server was closed."""

from __future__ import annotations

import os
import signal

__all__ = ["HangUp"]


class HangUp:
    """Tells the two apart. Made when a server starts.

    Only the closing of the terminal that it was started at stops a server, and under `nohup` not
    even that. Any other SIGHUP, from an operator or a service manager, is a reload.
    """

    def __init__(self) -> None:
        ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        self._stops = not ignored and _at_terminal()

    def closed(self) -> bool:
        """Whether the terminal that the server was started at is gone."""
        return self._stops and not _at_terminal()


def _at_terminal() -> bool:
    """Whether this process has a terminal; one that was closed cannot be opened any more."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK))
    except OSError:
        return False
    return True
