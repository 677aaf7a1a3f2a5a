"""The first process inside a sandbox: sets the limits, says that it is ready, runs one program.

Started as `python3 -I -B -c TEXT NICE LIMIT=VALUE,... MODULE,...`, before it is known what will
run. It imports next to nothing: that would be half of the cost of a short program. The program
finds this interpreter as its own. `forker.py` uses the functions in the processes that it forks.
"""

import os
import resource
import sys


def _exactly(size: int) -> bytes:
    """Read so many bytes and not one more: what follows belongs to the program."""
    data = b""
    while len(data) < size:
        chunk = os.read(0, size - len(data))
        if not chunk:
            os._exit(0)  # not needed after all
        data += chunk
    return data


def set_limits(nice: str, limits: str) -> None:
    """Set what holds for this process and all that it starts."""
    os.nice(int(nice))
    for limit in limits.split(","):
        name, _, value = limit.partition("=")
        resource.setrlimit(getattr(resource, name), (int(value), int(value)))


def load(modules: str) -> None:
    """Import what programs are likely to import."""
    for module in filter(None, modules.split(",")):
        __import__(module)


def run_program() -> None:
    """Say that this process is ready, wait for the program, and run it."""
    os.write(1, b"ready\n")
    cpu_s, size = int(_exactly(8), 16), int(_exactly(8), 16)
    source = _exactly(size).decode("utf-8", "surrogatepass")
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s))
    scope = {"__name__": "__main__", "__builtins__": __builtins__}
    exec(compile(source, "<program>", "exec"), scope)


def _main() -> None:
    nice, limits, modules = sys.argv[1:]
    del sys.argv[1:]
    set_limits(nice, limits)
    load(modules)
    run_program()


if __name__ == "__main__":
    _main()
