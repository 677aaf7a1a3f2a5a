"""A `samplewise` command as a child that ends with its parent, however that ended.

Run as `python -m samplewise.proxy.demo.child COMMAND ...` with a pipe as standard input: when the
pipe's other end is closed, the command gets a SIGTERM.
"""

from __future__ import annotations

import os
import signal
import sys
import threading

from samplewise.proxy.cli import main

__all__: list[str] = []


def _watch() -> None:
    # Not sys.stdin.read: that would hold a lock which the interpreter wants at its end.
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    threading.Thread(target=_watch, daemon=True).start()
    main(sys.argv[1:], prog_name="samplewise")
