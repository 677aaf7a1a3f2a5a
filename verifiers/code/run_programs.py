"""Runs inside the sandbox: a whole program once per case, each in a fresh process.

Reads {"files": {NAME: TEXT}, "check": COMMAND, "run": COMMAND, "cases": [TEXT], "most": BYTES} from
standard input. Without commands, "main.py" is run as Python. Prints {"compile": null}, then one
JSON line per case, {"case": N, "exit": CODE, "stdout": TEXT, "result": TEXT}: the result is what
was written to descriptor 3. {"compile": TEXT} alone when the check fails. Expected output is not
here.
"""

import json
import os
import signal
import sys
import types
from typing import Any


# Each of these programs goes into its sandbox as one text, and finds nothing of ours to import
# there: a few small functions therefore stand in more than one of them.
def _send(frames: int, frame: dict[str, Any]) -> None:
    data = json.dumps(frame).encode() + b"\n"
    while data:
        data = data[os.write(frames, data) :]


def _file(data: bytes = b"") -> int:
    """Return a file in memory that has no name."""
    descriptor = os.memfd_create("stream", 0)
    while data:
        data = data[os.write(descriptor, data) :]
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _read(descriptor: int, most: int) -> str | None:
    """Return what was written, or None when it is more than `most` bytes."""
    if os.fstat(descriptor).st_size > most:
        return None
    os.lseek(descriptor, 0, os.SEEK_SET)
    data = b""
    while chunk := os.read(descriptor, most + 1):
        data += chunk
    return data.decode("utf-8", "replace")


def _become(streams: list[int], command: list[str]) -> None:
    """Put the streams to 0 to 3 in a child, and the program where its command is."""
    os.setsid()
    for descriptor, source in enumerate(streams):
        os.dup2(source, descriptor)
    os.closerange(4, 256)
    if command:
        os.execv(command[0], command)
    sys.stdin = os.fdopen(0, encoding="utf-8", errors="replace")
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", errors="replace")
    sys.stderr = os.fdopen(2, "w")
    sys.argv = ["main.py"]


def _clear() -> None:
    """Kill and reap all that a program left behind; the first process stays."""
    if os.getpid() != 1:
        return  # in no process namespace of its own: this would end everything
    try:
        os.kill(-1, signal.SIGKILL)
        while True:
            os.wait()
    except (ProcessLookupError, ChildProcessError):
        return


def _check(frames: int, job: dict[str, Any]) -> Any:
    """Return code to run here, None for a command, or False when the program does not compile."""
    if not job["run"]:
        try:
            return compile(job["files"]["main.py"], "main.py", "exec", dont_inherit=True)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            line = getattr(error, "lineno", None)
            place = f"line {line}: " if line else ""
            _send(frames, {"compile": f"{place}{getattr(error, 'msg', type(error).__name__)}"})
            return False
    if job["check"]:
        streams = [_file(), _file(), _file(), _file()]
        child = os.fork()
        if not child:
            _become(streams, job["check"])
        if os.waitpid(child, 0)[1]:
            _send(frames, {"compile": _read(streams[2], job["most"]) or "the compiler failed"})
            return False
    return None


def _main() -> None:
    job = json.loads(sys.stdin.buffer.read())
    frames = os.dup(1)
    # Where nothing is started by a command, nothing reads them, and there may be no place for them.
    for name, text in job["files"].items() if job["run"] or job["check"] else ():
        with open(name, "w", encoding="utf-8", errors="replace") as file:
            file.write(text)
    code = _check(frames, job)
    if code is False:
        return
    _send(frames, {"compile": None})  # first, while the program cannot write anything
    quiet = os.open(os.devnull, os.O_RDWR)
    for case, text in enumerate(job["cases"]):
        streams = [_file(text.encode("utf-8", "replace")), _file(), quiet, _file()]
        child = os.fork()
        if not child:
            _become(streams, job["run"])
            main = types.ModuleType("__main__")
            sys.modules["__main__"] = main
            exec(code, main.__dict__)
            return  # and so ends as any program does
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        _clear()
        out, result = _read(streams[1], job["most"]), _read(streams[3], job["most"])
        for descriptor in (streams[0], streams[1], streams[3]):
            os.close(descriptor)
        if out is None or result is None:
            _send(frames, {"case": case, "error": "OutputLimit"})
        else:
            _send(frames, {"case": case, "exit": status, "stdout": out, "result": result})


if __name__ == "__main__":
    _main()
