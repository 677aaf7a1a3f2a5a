"""Runs inside the sandbox: unpacks a tree, runs the command of its tests, and says what came out.

Reads two parts from standard input, each 8 hexadecimal digits and so many bytes: JSON {"command",
"environment", "most", "poison": [PATH]}, and a tar archive of the tree. Prints one JSON line
{"exit": CODE, "out": TEXT, "err": TEXT, "over": BOOL}. The tests cannot look into this process, nor
write what it prints; what they print themselves is not to be trusted.

In files that are named as poison every test is made to fail: with a raise at its end, and with
comparisons that nothing honest survives. A test that passes all the same gives away that something
makes tests pass.
"""

import ast
import ctypes
import io
import json
import os
import secrets
import signal
import subprocess
import sys
import tarfile
import threading
from typing import Any

_SET_DUMPABLE = 4
# Text that is put into the tests, never run by us: whatever a comparison raises says that it does
# not hold, SystemExit and what pytest.fail() raises too. A patch could replace what it imported.
_HELPER = """
def {held}(*attempts):
    for attempt in attempts:
        try:
            if attempt() is False:
                continue
        except BaseException:
            continue
        return True
    return False
"""
# Methods of unittest whose two first arguments nothing unrelated satisfies.
_PAIRS = frozenset(
    f"assert{name}"
    for name in (
        *("Equal", "Equals", "AlmostEqual", "ListEqual", "DictEqual", "TupleEqual", "SetEqual"),
        *("SequenceEqual", "MultiLineEqual", "CountEqual", "Is", "Less", "LessEqual", "Greater"),
        *("GreaterEqual", "In", "IsInstance"),
    )
)
_COMPARISONS = (ast.Eq, ast.Is, ast.In, ast.Lt, ast.LtE, ast.Gt, ast.GtE)


# Each of these programs goes into its sandbox as one text, and finds nothing of ours to import
# there: a few small functions therefore stand in more than one of them.
def _part() -> bytes:
    return sys.stdin.buffer.read(int(sys.stdin.buffer.read(8), 16))


class _Poison(ast.NodeTransformer):
    """Make every test of a module fail; one that something saves returns before it could."""

    def __init__(self) -> None:
        self.held = f"_{secrets.token_hex(6)}"

    def visit_FunctionDef(self, node: ast.FunctionDef) -> Any:
        """Poison a test."""
        return self._test(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> Any:
        """Poison a test."""
        return self._test(node)

    def _test(self, node: Any) -> Any:
        if not node.name.startswith("test"):
            return node  # what helpers do stays as it is
        body = [part for statement in node.body for part in self._statement(statement)]
        end = ast.parse(f"raise AssertionError({secrets.token_hex(6)!r})").body
        node.body = [*body, *end]
        return node

    def _statement(self, node: Any) -> list[Any]:
        for name in ("body", "orelse", "finalbody"):
            inner = getattr(node, name, None)
            if isinstance(inner, list) and not hasattr(node, "decorator_list"):
                changed = [part for each in inner for part in self._statement(each)]
                setattr(node, name, changed)
        probes = self._probes(node)
        if not probes or any(isinstance(part, ast.Await) for part in ast.walk(node)):
            return [node]
        attempts = ", ".join(f"lambda: {probe}" for probe in probes)
        # A bare return: the test passes, which is what must not be.
        return [*ast.parse(f"if {self.held}({attempts}):\n    return").body, node]

    def _probes(self, node: Any) -> list[str]:
        """Return expressions that are false or raise, unless something is wrong."""
        if isinstance(node, ast.Assert):
            return self._compared(node.test)
        call = node.value if isinstance(node, ast.Expr) else None
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute):
            return []
        method, function = call.func.attr, ast.unparse(call.func)
        if ast.unparse(call.func.value) != "self" or any(
            isinstance(arg, ast.Starred) for arg in call.args
        ):
            return []
        args = [ast.unparse(arg) for arg in call.args]
        if method in _PAIRS and len(args) >= 2:
            return [f"{function}({args[0]}, object())", f"{function}(object(), {args[1]})"]
        if method == "assertTrue" and args:
            return [f"{function}(False)", *self._compared(call.args[0])]
        return [f"{function}(True)"] if method == "assertFalse" else []

    def _compared(self, test: Any) -> list[str]:
        if not isinstance(test, ast.Compare) or len(test.ops) != 1:
            return []
        if not isinstance(test.ops[0], _COMPARISONS):
            return []
        sides = (test.left, ast.parse("object()", mode="eval").body)
        other = (sides[1], test.comparators[0])
        pairs = (sides, other)
        return [f"bool({ast.unparse(ast.Compare(a, test.ops, [b]))})" for a, b in pairs]


def _poisoned(source: bytes) -> str:
    poison = _Poison()
    tree = poison.visit(ast.parse(source))
    head = [
        node
        for node in tree.body[:20]
        if (isinstance(node, ast.ImportFrom) and node.module == "__future__")
    ]
    for node in head:
        tree.body.remove(node)
    helper = ast.parse(_HELPER.replace("{held}", poison.held)).body
    tree.body = [*head, *helper, *tree.body]
    return ast.unparse(ast.fix_missing_locations(tree))


def _drain(descriptor: int, most: int, kept: bytearray, child: int) -> None:
    """Read to the end; the tests are killed when more comes than is wanted."""
    while chunk := os.read(descriptor, 1 << 16):
        if len(kept) <= most:
            kept += chunk
            if len(kept) > most:
                os.killpg(child, signal.SIGKILL)


def _clear() -> None:
    """Kill and reap all that the tests left behind; the first process stays."""
    if os.getpid() != 1:
        return  # in no process namespace of its own: this would end everything
    try:
        os.kill(-1, signal.SIGKILL)
        while True:
            os.wait()
    except (ProcessLookupError, ChildProcessError):
        return


def _main() -> None:
    ctypes.CDLL(None).prctl(_SET_DUMPABLE, 0, 0, 0, 0)
    job, archive = json.loads(_part()), _part()
    os.mkdir("tree")
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall("tree")
    for path in job["poison"]:
        with open(f"tree/{path}", "rb") as file:
            source = file.read()
        try:
            poisoned = _poisoned(source)
        except (SyntaxError, ValueError, RecursionError):
            continue  # for another Python, or none: no test of it can run
        with open(f"tree/{path}", "w", encoding="utf-8") as file:
            file.write(poisoned)
    os.mkdir("/tmp/home")
    child = subprocess.Popen(
        job["command"],
        cwd="tree",
        stdin=subprocess.DEVNULL,
        # Pipes: what was written to a file could be taken back.
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={"PATH": "/usr/bin", "LANG": "C.UTF-8", "HOME": "/tmp/home", **job["environment"]},
        start_new_session=True,
    )
    kept = [bytearray(), bytearray()]
    readers = [
        threading.Thread(target=_drain, args=(pipe.fileno(), job["most"], data, child.pid))
        for pipe, data in zip((child.stdout, child.stderr), kept, strict=True)
        if pipe is not None
    ]
    for reader in readers:
        reader.start()
    code = child.wait()
    _clear()
    for reader in readers:
        reader.join()
    out, err = (data[: job["most"]].decode("utf-8", "replace") for data in kept)
    over = max(map(len, kept)) > job["most"]
    print(json.dumps({"exit": code, "out": out, "err": err, "over": over}))


if __name__ == "__main__":
    _main()
