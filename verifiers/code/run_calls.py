"""Runs inside the sandbox: calls a Python function once per case, each call in a fresh process.

Reads {"code", "entry_point", "cases": [{"args", "kwargs"}]} from standard input. Prints one JSON
line {"compile": null}, then one per case, {"case": N, "value": ...} or {"case": N, "error": NAME};
{"compile": TEXT} alone when the code does not compile. What comes out is compared elsewhere:
nothing here is to be trusted, and no expected value is here to be found.
"""

import json
import os
import sys
import types
from functools import partial
from typing import Any

_dumps, _write, _exit = json.dumps, os.write, os._exit


# Each of these programs goes into its sandbox as one text, and finds nothing of ours to import
# there: a few small functions therefore stand in more than one of them.
def _send(frames: int, frame: dict[str, Any]) -> None:
    data = _dumps(frame).encode() + b"\n"
    while data:
        data = data[_write(frames, data) :]


def _uncaught(frames: int, case: int, kind: type, error: object, trace: object) -> None:
    _send(frames, {"case": case, "error": kind.__name__})
    _exit(1)


def _find(module: types.ModuleType, path: str) -> Any:
    first, *rest = path.split(".")
    found: Any = getattr(module, first)
    for name in rest:
        found = getattr(found() if isinstance(found, type) else found, name)
    return found


def _call(frames: int, case: int, function: Any, given: dict[str, Any]) -> None:
    sys.excepthook = partial(_uncaught, frames, case)
    value = function(*given["args"], **given["kwargs"])
    _send(frames, {"case": case, "value": value})
    _exit(0)


def _load_and_call(frames: int, code: types.CodeType, job: dict[str, Any]) -> None:
    """Load the program once, then fork for each case."""
    module = types.ModuleType("answer")
    sys.modules["answer"] = module
    sys.excepthook = partial(_uncaught, frames, -1)
    exec(code, module.__dict__)
    function = _find(module, job["entry_point"])
    for case, given in enumerate(job["cases"]):
        child = os.fork()
        if not child:
            _call(frames, case, function, given)
        os.waitpid(child, 0)
    _exit(0)


def _main() -> None:
    job = json.loads(sys.stdin.buffer.read())
    frames = os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    try:
        code = compile(job["code"], "<answer>", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = getattr(error, "lineno", None)
        place = f"line {line}: " if line else ""
        _send(frames, {"compile": f"{place}{getattr(error, 'msg', type(error).__name__)}"})
        return
    _send(frames, {"compile": None})  # first, while the program cannot write anything
    child = os.fork()
    if not child:
        _load_and_call(frames, code, job)
    os.waitpid(child, 0)


if __name__ == "__main__":
    _main()
