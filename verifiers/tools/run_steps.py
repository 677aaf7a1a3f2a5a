"""Runs inside the sandbox: one command after another, each in a fresh folder, until one fails.

Reads {"steps": [{"files": {NAME: TEXT}, "command": COMMAND, "outputs": [NAME]}], "most": BYTES}
from standard input; "{python}" in a command is this interpreter. A step sees its own files and the
outputs of the steps before it, as they were when those ended, and nothing else that they wrote.
Prints one JSON line per step, {"step": N, "exit": CODE, "stdout": TEXT, "stderr": TEXT}.
"""

import ctypes
import json
import os
import signal
import stat
import sys
from typing import Any

_SET_DUMPABLE = 4
_PLACES = (".", "/tmp", "/dev/shm")
_MOST_SAVED = 2**26


# Each of these programs goes into its sandbox as one text, and finds nothing of ours to import
# there: a few small functions therefore stand in more than one of them.
def _send(frames: int, frame: dict[str, Any]) -> None:
    data = json.dumps(frame).encode() + b"\n"
    while data:
        data = data[os.write(frames, data) :]


def _read(descriptor: int, most: int) -> str:
    os.lseek(descriptor, 0, os.SEEK_SET)
    data = b""
    while len(data) < most and (chunk := os.read(descriptor, most - len(data))):
        data += chunk
    return data.decode("utf-8", "replace")


def _clear() -> None:
    """Kill and reap all that a command left behind, and remove what it wrote."""
    if os.getpid() == 1:  # else it would end everything
        try:
            os.kill(-1, signal.SIGKILL)
            while True:
                os.wait()
        except (ProcessLookupError, ChildProcessError):
            pass
    for place in _PLACES if os.getpid() == 1 else (".",):
        _empty(place)


def _empty(folder: str) -> None:
    for entry in os.scandir(folder):
        if entry.is_dir(follow_symlinks=False):
            os.chmod(entry.path, 0o700)  # whoever made it may have locked it
            _empty(entry.path)
            os.rmdir(entry.path)
        else:
            os.unlink(entry.path)


def _write(name: str, data: bytes) -> None:
    folder = os.path.dirname(name)
    if folder:
        os.makedirs(folder, exist_ok=True)
    with open(name, "wb") as file:
        file.write(data)


def _saved(name: str) -> bytes | None:
    """Return a file that a command wrote; None for a link, a pipe, or what is not there."""
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    with open(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        return file.read() if stat.S_ISREG(found.st_mode) and found.st_size < _MOST_SAVED else None


def _run(command: list[str], streams: list[int]) -> int:
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os.setsid()
    for descriptor, source in enumerate(streams):
        os.dup2(source, descriptor)
    os.closerange(3, 256)
    try:
        os.execv(command[0], command)
    finally:
        os._exit(127)


def _main() -> None:
    # What a command starts must not be able to look into this process, or write its frames.
    ctypes.CDLL(None).prctl(_SET_DUMPABLE, 0, 0, 0, 0)
    job = json.loads(sys.stdin.buffer.read())
    null = os.open(os.devnull, os.O_RDWR)
    kept: dict[str, bytes] = {}
    for number, step in enumerate(job["steps"]):
        _clear()
        for name, data in kept.items():
            _write(name, data)
        for name, text in step["files"].items():
            _write(name, text.encode("utf-8", "replace"))
        streams = [null, os.memfd_create("out"), os.memfd_create("err")]
        command = [sys.executable if part == "{python}" else part for part in step["command"]]
        code = _run(command, streams)
        out, err = (_read(descriptor, job["most"]) for descriptor in streams[1:])
        for descriptor in streams[1:]:
            os.close(descriptor)
        saved = {name: _saved(name) for name in step["outputs"]}
        kept |= {name: data for name, data in saved.items() if data is not None}
        _send(1, {"step": number, "exit": code, "stdout": out, "stderr": err})
        if code:
            return


if __name__ == "__main__":
    _main()
