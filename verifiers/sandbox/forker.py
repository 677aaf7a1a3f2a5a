"""The fork server: for every program one process, confined and waiting before it is known.

Started as `python3 -I -B -c TEXT JSON`. Descriptor 0 is a socket of packets: each names a user id
and brings four descriptors, three streams of a program and a socket to report to. For each, two
processes are forked. The outer one sees the program to its end: it reports first, and the status
and processor time at last, and it ends everything when nobody listens any more. The inner one
confines itself as `confine` says and becomes the agent. Neither has the socket of this server.
"""

import atexit
import ctypes
import gc
import json
import os
import resource
import select
import signal
import socket
import sys
import types
from typing import Any

_SET_DEATH_SIGNAL, _SET_SECCOMP, _SET_NO_NEW_PRIVILEGES, _DROP_BOUND = 1, 22, 38, 24
_FILTER = 2
_CAPABILITIES_3 = 0x20080522
_MOST = 4096
libc = ctypes.CDLL(None, use_errno=True)


def call(name: str, *arguments: Any) -> int:
    """Call the C library; raises OSError."""
    result: int = getattr(libc, name)(*arguments)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return result


def _module(name: str, text: str) -> Any:
    module = types.ModuleType(name)
    exec(compile(text, f"<{name}>", "exec"), module.__dict__)
    return module


class _Filter(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("lines", ctypes.c_char_p))


def _drop_bound() -> None:
    capability = 0
    while libc.prctl(_DROP_BOUND, capability, 0, 0, 0) == 0:
        capability += 1


def _give_up_privileges() -> None:
    header = (ctypes.c_uint32 * 2)(_CAPABILITIES_3, 0)
    call("capset", ctypes.byref(header), ctypes.byref((ctypes.c_uint32 * 6)()))
    call("prctl", _SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0)


class _Server:
    def __init__(self, settings: dict[str, Any]) -> None:
        self._settings = settings
        self._agent = _module("agent", settings["agent"])
        self._confine = _module("confine", settings["confine"])
        lines = bytes.fromhex(settings["filter"])
        self._filter = _Filter(len(lines) // 8, lines)
        self._agent.load(settings["modules"])
        self._confine.prepare(call, settings)

    def serve(self) -> None:
        """Return in every process that is to run a program, ready for it; else never."""
        gc.collect()
        gc.freeze()  # so that collecting does not copy what is shared
        control = socket.socket(fileno=0)
        while True:
            data, descriptors, _, _ = socket.recv_fds(control, _MOST, 4)
            if not data:
                os._exit(0)
            _reap()
            if not os.fork():
                control.detach()
                return self._attend(int(data), descriptors)
            for descriptor in descriptors:
                os.close(descriptor)

    def _attend(self, uid: int, descriptors: list[int]) -> None:
        os.setsid()
        for number, descriptor in enumerate(descriptors[:3]):
            os.dup2(descriptor, number)
            os.close(descriptor)
        report = socket.socket(fileno=descriptors[3])
        report.send(b"outer")
        self._confine.outside(call, uid)
        child = os.fork()
        if child:
            status = _end_of(child, report)
            self._confine.after(uid)
            used = resource.getrusage(resource.RUSAGE_CHILDREN)
            cpu_ms = (used.ru_utime + used.ru_stime) * 1000
            report.send(b"%d %.3f" % (status, cpu_ms))
            os._exit(0)
        # In a session of its own: `kill(0, ...)` is for this process and its children alone.
        os.setsid()
        report.send(b"inner")
        report.close()
        self._agent.set_limits(self._settings["nice"], self._settings["limits"])
        _drop_bound()
        self._confine.inside(call, self._settings, uid)
        _give_up_privileges()
        call("prctl", _SET_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
        call("prctl", _SET_SECCOMP, _FILTER, ctypes.byref(self._filter), 0, 0)

    def run_program(self) -> None:
        """Become the agent; what it runs may end in any way, and ends as in any interpreter."""
        said: list[object] = []
        # What is registered first is called last: after all that the program has registered.
        atexit.register(_leave, said)
        try:
            self._agent.run_program()
        except SystemExit as stop:
            said.append(stop.code)
            raise


def _leave(said: list[object]) -> None:
    """End without tidying up: to free all objects would copy all that is shared."""
    code = next(iter(said), None)
    if hasattr(sys, "last_type") or not isinstance(code, int | None):
        code = 1  # and the interpreter has written what it is
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError):
        code = 120  # as the interpreter has it
    os._exit((code or 0) & 255)


def _reap() -> None:
    """Collect those that have ended, so that their processor time counts."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return


def _end_of(child: int, report: socket.socket) -> int:
    """Return the exit status of a child, which is killed when nobody wants to know it any more."""
    ended = os.pidfd_open(child)
    poll = select.poll()
    poll.register(ended, select.POLLIN)
    poll.register(report, select.POLLIN | select.POLLHUP)
    if any(descriptor != ended for descriptor, _ in poll.poll()):
        os.kill(child, signal.SIGKILL)
    pid, status = os.wait()
    while pid != child:  # others that the program left
        pid, status = os.wait()
    return os.waitstatus_to_exitcode(status)


def _main() -> None:
    server = _Server(json.loads(sys.argv[1]))
    del sys.argv[1:]
    server.serve()
    server.run_program()


if __name__ == "__main__":
    _main()
