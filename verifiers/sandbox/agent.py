"""The first process inside a sandbox: sets the limits, says that it is ready, runs one program.

Started as `python3 -I -B -c TEXT LIMITS`, before it is known what will run. Standard library
only; the program finds this interpreter as its own.
"""

import json
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


def _main() -> None:
    limits = json.loads(sys.argv.pop())
    os.nice(limits.pop("nice"))
    for name, value in limits.items():
        resource.setrlimit(getattr(resource, name), (value, value))
    os.write(1, b"ready\n")
    job = json.loads(_exactly(int(_exactly(8), 16)))
    resource.setrlimit(resource.RLIMIT_CPU, (job["cpu_s"], job["cpu_s"]))
    scope = {"__name__": "__main__", "__builtins__": __builtins__}
    exec(compile(job["source"], "<program>", "exec"), scope)


_main()
