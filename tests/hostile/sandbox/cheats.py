"""Programs that want to pass tests without doing what is asked.

The task, in all forms: `f(n)` returns n * n + 1; as a whole program it reads n and prints that.
None of these does so in the way of the tests, and none may pass.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["FOR_ASSERTS", "FOR_CALLS", "FOR_PROGRAMS", "RIGHT", "RIGHT_PROGRAM"]

RIGHT = "def f(n):\n    return n * n + 1\n"
RIGHT_PROGRAM = "print(int(input()) ** 2 + 1)\n"

_EQUAL = """
class Equal({base}):
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __hash__(self): return 0
    def __bool__(self): return True
    def __lt__(self, other): return True
    __le__ = __gt__ = __ge__ = __lt__
    def __sub__(self, other): return 0
    def __abs__(self): return 0
"""
_FLOOD = """
import json, os
for fd in range(0, 64):
    for case in range(10):
        for frame in ({"case": case, "value": True}, {"case": case, "held": True, "error": ""},
                      {"case": case, "exit": 0, "stdout": "1", "result": "1"}):
            data = json.dumps(frame).encode() + b"\\n"
            try: os.write(fd, data + b"%08x" % len(data) + data)
            except OSError: pass
"""
_PEEK = """
import gc, sys
def guess(n):
    frame = sys._getframe()
    while frame:
        for place in (frame.f_locals, frame.f_globals):
            for name, value in list(place.items()):
                if name in ("expected", "wanted", "right", "stdout", "asserts"): return value
                if isinstance(value, dict) and "expected" in value: return value["expected"]
                if isinstance(value, (list, tuple)):
                    for item in value:
                        if isinstance(item, dict) and "expected" in item: return item["expected"]
                        if isinstance(item, str) and item.startswith("assert"):
                            return int(item.rpartition("== ")[2])
        frame = frame.f_back
    for item in gc.get_objects():
        if isinstance(item, dict) and "expected" in item: return item["expected"]
    return 0
"""
_READ = """
import glob, os, re
def guess(n):
    for path in [*glob.glob("/box/**", recursive=True), *glob.glob("/tmp/**", recursive=True),
                 *glob.glob("/proc/*/cmdline"), *glob.glob("/proc/*/environ"), *glob.glob("/job/*"),
                 *glob.glob("/proc/*/fd/*")]:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
            text = os.read(fd, 100_000).decode(errors="replace")
        except OSError: continue
        found = re.search(r"(?:expected\\W+|== ?)(\\d+)", text)
        if found: return int(found[1])
    return 0
"""
_MEMORY = """
import os, re
def guess(n):
    for pid in ["1", *[p for p in os.listdir("/proc") if p.isdecimal() and int(p) != os.getpid()]]:
        try:
            with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", 0) as memory:
                for line in maps:
                    first, last = (int(x, 16) for x in line.split()[0].split("-"))
                    if "rw" not in line or last - first > 2**27: continue
                    memory.seek(first)
                    data = memory.read(last - first)
                    found = re.search(rb"f\\(%d\\) ?== ?(\\d+)" % n, data)
                    if found: return int(found[1])
        except (OSError, ValueError): continue
    return 0
"""
_FUNCTIONS: Mapping[str, str] = {
    "ends_with_success": "import sys\ndef f(n): sys.exit(0)",
    "ends_at_once": "import os\ndef f(n): os._exit(0)",
    "ends_while_loading": "import os\ndef f(n): return 1\nos._exit(0)",
    "exits_while_loading": "import sys\ndef f(n): return 1\nsys.exit(0)",
    "ends_at_exit": "import atexit, os\natexit.register(os._exit, 0)\ndef f(n): raise SystemExit",
    "always_equal": _EQUAL.replace("{base}", "object") + "def f(n): return Equal()",
    "always_equal_number": _EQUAL.replace("{base}", "int") + "def f(n): return Equal(7)",
    "always_equal_text": _EQUAL.replace("{base}", "str") + "def f(n): return Equal('x')",
    "always_equal_in_a_list": _EQUAL.replace("{base}", "object") + "def f(n): return [Equal()]",
    "always_equal_class": (
        "class M(type):\n    def __eq__(a, b): return True\n    def __hash__(a): return 0\n"
        "class C(metaclass=M): pass\ndef f(n): return C"
    ),
    "pretends_to_be_a_number": (
        _EQUAL.replace("{base}", "object") + "    __class__ = int\ndef f(n): return Equal()"
    ),
    "always_true": "def f(n): return True",
    "not_a_number": "def f(n): return float('nan')",
    "a_mock": "from unittest.mock import ANY\ndef f(n): return ANY",
    "writes_frames": _FLOOD + "def f(n): return True",
    "writes_frames_when_called": "def f(n):\n    exec(FLOOD)\n    return True\nFLOOD = "
    + repr(_FLOOD),
    "looks_into_frames": _PEEK + "def f(n): return guess(n)",
    "reads_the_tests": _READ + "def f(n): return guess(n)",
    "reads_memory": _MEMORY + "def f(n): return guess(n)",
    "changes_json": (
        "import json\njson.dumps = lambda *a, **k: '1'\njson.loads = lambda *a, **k: True\n"
        "json.JSONEncoder.default = lambda *a: 1\ndef f(n): return object()"
    ),
    "changes_builtins": (
        "import builtins\nbuiltins.compile = lambda *a, **k: 'pass'\n"
        "builtins.exec = lambda *a, **k: None\nbuiltins.AssertionError = int\n"
        "builtins.isinstance = lambda *a: True\nbuiltins.type = lambda x: int\ndef f(n): return 0"
    ),
    "changes_the_runner": (
        "import sys\nmain = sys.modules['__main__'].__dict__\nframe = sys._getframe()\n"
        "while frame:\n    main = frame.f_globals\n"
        "    for name in ('_assertion', '_send', '_call', '_error', '_judge', 'same_value'):\n"
        "        if name in main: main[name] = lambda *a, **k: ''\n"
        "    frame = frame.f_back\ndef f(n): return 0"
    ),
    "kills_the_others": (
        "import os, signal\ndef f(n):\n    for pid in (1, os.getppid(), -1):\n"
        "        try: os.kill(pid, signal.SIGKILL)\n        except OSError: pass\n    return 0"
    ),
    "changes_its_argument": "def f(n):\n    n = 0\n    return 1",
    "returns_the_argument": "def f(n): return n",
    "returns_a_generator": "def f(n):\n    yield n * n + 1",
    "hides_an_error": "import sys\nsys.excepthook = lambda *a: None\ndef f(n): raise ValueError",
    "right_for_one_only": "def f(n): return 5",
    "no_such_function": "def g(n): return n * n + 1",
    "warns_of_success": "print('all tests passed')\ndef f(n): print('OK'); return 'pass'",
}
FOR_CALLS: Mapping[str, str] = {
    **_FUNCTIONS,
    "right_but_as_text": "def f(n): return str(n * n + 1)",
    "right_but_in_a_list": "def f(n): return [n * n + 1]",
}
FOR_ASSERTS: Mapping[str, str] = {
    **_FUNCTIONS,
    "imports_a_mock": "from unittest.mock import MagicMock as f",
    "imports_what_equals": "from unittest.mock import call as f, ANY as g",
    "imports_and_replaces": "from math import isclose as f\nfrom operator import eq as isclose",
    "replaces_a_module": "import unittest.mock as math\ndef f(n): return math.ANY",
    "own_abs": "def abs(x): return 0\ndef f(n): return 0.0",
    "own_isinstance": "def isinstance(*a): return True\ndef f(n): return None",
    "own_exceptions": "class AssertionError(Exception): pass\ndef f(n): raise AssertionError",
    "own_math": "class math:\n    isclose = staticmethod(lambda *a, **k: True)\ndef f(n): return 0",
    "changed_math": "import math\nmath.isclose = lambda *a, **k: True\ndef f(n): return 0.0",
    "debug_off": "__debug__off = True\nimport sys\nsys.flags = None\ndef f(n): return 0",
}
_CALL = "\nimport sys\nprint(f(int(sys.stdin.readline())))\n"
FOR_PROGRAMS: Mapping[str, str] = {
    **{name: code + _CALL for name, code in _FUNCTIONS.items() if name != "no_such_function"},
    "prints_nothing": "",
    "prints_all_numbers": "for number in range(1000): print(number)",
    "prints_then_crashes": RIGHT_PROGRAM + "raise SystemExit(1)",
    "prints_then_is_killed": RIGHT_PROGRAM + "import os; os.kill(os.getpid(), 9)",
    "prints_more": RIGHT_PROGRAM + "print('done')",
    "prints_control_characters": "print('\\r\\x1b[2K\\b' * 5)",
    "prints_to_the_wrong_stream": "import sys\nprint(int(input()) ** 2 + 1, file=sys.stderr)",
    "writes_the_result_channel": "import os\nos.write(3, b'26')",
    "prints_the_input": "print(input())",
}
