"""Runs inside the sandbox: asserts in one process, the program in another.

Only data crosses between them. What the program returns is built anew from plain values on the
side of the asserts, so no object of the program is asked whether it is equal; and the process of
the asserts, which knows what is expected, cannot be looked into.

Reads two frames from standard input, each 8 hexadecimal digits and so many bytes of JSON: the code,
then the list of asserts. Prints {"compile": null}, then one JSON line each, {"case": N, "held":
BOOL, "error": NAME}; {"compile": TEXT} alone when the code does not compile.
"""

import ast
import builtins
import ctypes
import importlib
import json
import os
import sys
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

_SET_DUMPABLE = 4
_prctl = ctypes.CDLL(None).prctl
sys.set_int_max_str_digits(0)


class RemoteError(Exception):
    """The program raised something that is none of Python's own exceptions."""


class Stream:
    """Frames over two pipes."""

    def __init__(self, read: int, write: int) -> None:
        self._read, self._write = read, write
        self.over = False

    def send(self, value: Any) -> None:
        """Send one value of JSON."""
        data = json.dumps(value).encode()
        data = b"%08x" % len(data) + data
        while data:
            data = data[os.write(self._write, data) :]

    def receive(self) -> Any:
        """Return the next value; raises EOFError when nobody is there any more."""
        return json.loads(self._exactly(int(self._exactly(8), 16)))

    def _exactly(self, size: int) -> bytes:
        parts = []
        while size:
            part = os.read(self._read, min(size, 1 << 20))
            if not part:
                raise EOFError
            parts.append(part)
            size -= len(part)
        return b"".join(parts)


_SCALARS: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (bool, bool),
    (int, int.__int__),
    (float, float.__float__),
    (str, str.__str__),
)
_MANY: dict[str, Any] = {"l": list, "t": tuple, "s": set, "f": frozenset}


def pack(value: Any, keep: Callable[[Any], int]) -> Any:
    """Return JSON for a value: plain data by value, anything else as a number that `keep` gives."""
    if value is None:
        return None
    for kind, plain in _SCALARS:
        if isinstance(value, kind):
            return plain(value)
    for tag, kind in _MANY.items():
        if isinstance(value, kind):
            return {tag: [pack(item, keep) for item in kind.__iter__(value)]}
    if isinstance(value, dict):
        return {"d": [[pack(k, keep), pack(v, keep)] for k, v in dict.items(value)]}
    if isinstance(value, bytes | bytearray):
        return {"b": bytes(value).hex()}
    if type(value) is complex:
        return {"c": [value.real, value.imag]}
    return {"o": keep(value)}


def unpack(packed: Any, known: Callable[[int], Any]) -> Any:
    """Return the value for JSON that `pack` made."""
    if not isinstance(packed, dict):
        return packed
    ((tag, body),) = packed.items()
    if tag in _MANY:
        return _MANY[tag](unpack(item, known) for item in body)
    if tag == "d":
        return {unpack(k, known): unpack(v, known) for k, v in body}
    if tag == "b":
        return bytes.fromhex(body)
    if tag == "c":
        return complex(*body)
    return known(body)


# The side of the program.


def _serve(stream: Stream, module: types.ModuleType) -> None:
    """Answer what the asserts ask, until they are done with this copy of the program."""
    objects: list[Any] = []

    def keep(value: Any) -> int:
        objects.append(value)
        return len(objects) - 1

    while True:
        asked = stream.receive()
        if asked == "end":
            os._exit(0)
        try:
            on = asked["on"]
            owner = getattr(module, on) if isinstance(on, str) else objects[on]
            args = [unpack(item, objects.__getitem__) for item in asked["args"]]
            kwargs = {k: unpack(v, objects.__getitem__) for k, v in asked["kwargs"].items()}
            reply = {"value": pack(_do(asked["what"], owner, args, kwargs), keep)}
            after = [pack(item, keep) for item in args]
            if after != asked["args"]:
                reply["args"] = after  # changed in place
        except Exception as error:
            # The boundary to the program, which can raise anything.
            reply = {"raised": [kind.__name__ for kind in type(error).__mro__]}
        stream.send(reply)


def _do(what: str, owner: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
    match what:
        case "call":
            return owner(*args, **kwargs)
        case "item":
            return owner[args[0]]
        case "getattr":
            return getattr(owner, args[0])
        case _:
            return getattr(builtins, what)(owner)


def _program(stream: Stream, code: types.CodeType) -> None:
    """Load the program, then fork a copy of it for every assert."""
    module = types.ModuleType("answer")
    sys.modules["answer"] = module
    exec(code, module.__dict__)
    public = {k: v for k, v in vars(module).items() if not k.startswith("__")}
    plain = {k: pack(v, lambda _: -1) for k, v in public.items() if not callable(v)}
    stream.send({"calls": [k for k, v in public.items() if callable(v)], "plain": plain})
    while stream.receive() == "begin":
        child = os.fork()
        if not child:
            _serve(stream, module)
        os.waitpid(child, 0)
        stream.send("over")
    os._exit(0)


# The side of the asserts.


class Gone(BaseException):
    """The program ended while it was asked. Not for the asserts to catch."""


class Remote:
    """Something of the program that is no plain data: a function, a class, an object."""

    def __init__(self, stream: Stream, on: int | str) -> None:
        self._stream, self._on = stream, on

    def _ask(
        self, what: str, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Let it be done over there, and repeat here what it changed in its arguments."""
        ask = {
            "on": self._on,
            "what": what,
            "args": [pack(item, _number) for item in args],
            "kwargs": {k: pack(v, _number) for k, v in (kwargs or {}).items()},
        }
        self._stream.send(ask)
        try:
            reply = self._stream.receive()
        except EOFError:
            self._stream.over = True
            raise Gone from None
        if reply == "over":
            self._stream.over = True
            raise Gone
        if "raised" in reply:
            raise _exception(reply["raised"])
        for item, changed in zip(args, reply.get("args", ()), strict=False):
            _change(item, unpack(changed, self._known))
        return unpack(reply["value"], self._known)

    def _known(self, on: int) -> "Remote":
        return Remote(self._stream, on)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call it over there."""
        return self._ask("call", args, kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self._ask("getattr", [name])

    def __getitem__(self, key: Any) -> Any:
        return self._ask("item", [key])

    def __len__(self) -> int:
        return int(self._ask("len"))

    def __bool__(self) -> bool:
        return bool(self._ask("bool"))

    def __str__(self) -> str:
        return str(self._ask("str"))

    def __repr__(self) -> str:
        return str(self._ask("repr"))

    def __iter__(self) -> Iterator[Any]:
        iterator = self._ask("iter")
        try:
            while True:
                yield iterator._ask("next")
        except StopIteration:
            return

    def __next__(self) -> Any:
        return self._ask("next")


def _number(value: Any) -> int:
    if isinstance(value, Remote) and isinstance(value._on, int):
        return value._on
    raise TypeError(f"{type(value).__name__} is no data and cannot be given to the program")


def _exception(names: list[str]) -> Exception:
    for name in names:
        kind = getattr(builtins, name, None)
        if isinstance(kind, type) and issubclass(kind, Exception):
            try:
                return kind("raised by the program")
            except TypeError:
                continue
    return RemoteError(*names[:1])


def _change(item: Any, changed: Any) -> None:
    if isinstance(item, list):
        item[:] = changed
    elif isinstance(item, dict | set):
        item.clear()
        item.update(changed)


def _names(stream: Stream, said: dict[str, Any], real: dict[str, Any], entry: str) -> Any:
    """Return what the asserts see: names of the program, and behind these nothing of its making.

    What the program imports is imported here too, and Python's own names stay Python's own: else a
    program could bring an `abs` that is always zero. The entry point may have any name.
    """
    names = {k: unpack(v, lambda _: None) for k, v in said["plain"].items()}
    names |= {name: Remote(stream, name) for name in said["calls"]}
    kept = {
        name: value
        for name, value in names.items()
        if name == entry or not (hasattr(builtins, name) or name in sys.stdlib_module_names)
    }
    own = {"__name__": "asserts", "__builtins__": builtins}
    return {**kept, **{k: v for k, v in real.items() if k != entry}, **own}


def _imports(tree: ast.Module) -> dict[str, Any]:
    """Return what the top of a program imports, imported here, without what it defines itself.

    Under another name than its own only modules: else the program could choose what stands for
    the function that is asked about.
    """
    found: dict[str, Any] = {}
    for node in tree.body:
        try:
            if isinstance(node, ast.Import):
                for alias in node.names:
                    module = importlib.import_module(alias.name)
                    top = alias.name.partition(".")[0]
                    found[alias.asname or top] = module if alias.asname else sys.modules[top]
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                public = _public(importlib.import_module(node.module))
                wanted = {alias.name for alias in node.names if alias.asname in (None, alias.name)}
                found |= {k: v for k, v in public.items() if k in wanted or "*" in wanted}
        except (ImportError, AttributeError, SyntaxError, OSError):
            continue  # the program itself will say so
    return {k: v for k, v in found.items() if k not in _defined(tree) and not _foreign(k, v)}


def _public(module: types.ModuleType) -> dict[str, Any]:
    names = {k: v for k, v in vars(module).items() if not k.startswith("_")}
    return {k: v for k, v in names.items() if not hasattr(builtins, k)}


def _foreign(name: str, value: Any) -> bool:
    """Say whether this stands where a module of the standard library belongs."""
    return name in sys.stdlib_module_names and getattr(value, "__name__", "") != name


def _defined(tree: ast.Module) -> set[str]:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    found = {node.name for node in ast.walk(tree) if isinstance(node, kinds)}
    names = (node for node in ast.walk(tree) if isinstance(node, ast.Name))
    return found | {node.id for node in names if isinstance(node.ctx, ast.Store)}


def _error(code: str, names: dict[str, Any]) -> str:
    """Run one assert; return nothing if it held, "!" if it is no Python, else what it raised."""
    try:
        compiled = compile(code, "<assert>", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return "!"
    try:
        exec(compiled, names)
    except (Exception, Gone, SystemExit) as error:
        # The boundary to asserts of strangers, which can raise anything.
        return type(error).__name__
    return ""


def _main() -> None:
    _prctl(_SET_DUMPABLE, 0, 0, 0, 0)
    host = Stream(0, 1)
    job = host.receive()
    frames = os.dup(1)
    try:
        code = compile(job["code"], "<answer>", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = getattr(error, "lineno", None)
        place = f"line {line}: " if line else ""
        _print(frames, {"compile": f"{place}{getattr(error, 'msg', type(error).__name__)}"})
        return
    _print(frames, {"compile": None})  # first, while the program cannot write anything
    there, here = os.pipe(), os.pipe()
    if not os.fork():
        null = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1, 2):
            os.dup2(null, number)
        for number in (frames, there[1], here[0]):
            os.close(number)
        _prctl(_SET_DUMPABLE, 1, 0, 0, 0)
        _program(Stream(there[0], here[1]), code)
    os.close(there[0])
    os.close(here[1])
    null = os.open(os.devnull, os.O_RDWR)
    for number in (1, 2):
        os.dup2(null, number)
    real = _imports(ast.parse(job["code"]))
    _judge(Stream(here[0], there[1]), real, job["entry_point"], host.receive(), frames)


def _judge(
    program: Stream, real: dict[str, Any], entry: str, asserts: list[str], frames: int
) -> None:
    try:
        said = program.receive()
        for case, code in enumerate(asserts):
            program.send("begin")
            error = _error(code, _names(program, said, real, entry))
            if not program.over:
                program.send("end")
                while program.receive() != "over":
                    pass
            elif not error:
                error = "Gone"
            program.over = False
            _print(frames, {"case": case, "held": not error, "error": error})
    except (EOFError, OSError):
        return  # the program is gone, and with it the asserts that were not run


def _print(frames: int, frame: dict[str, Any]) -> None:
    os.write(frames, json.dumps(frame).encode() + b"\n")


if __name__ == "__main__":
    _main()
