"""Programs that try to take more than their share: of processes, memory, disk, output or time."""

from __future__ import annotations

from tests.hostile.sandbox.base import EXIT, MEMORY, OK, OUTPUT, SIGNAL, TIME, Hostile

__all__ = ["GREEDY"]

GREEDY = (
    Hostile(
        "fork_bomb",
        "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass",
        (TIME,),
    ),
    Hostile(
        "forks_past_its_share",
        """
import os, time
count = 0
try:
    while count < 1000:
        if not os.fork():
            time.sleep(60)
        count += 1
except OSError:
    pass
print("ESCAPED" if count >= 64 else "held", flush=True)
os._exit(0)
""",
    ),
    Hostile(
        "starts_many_threads",
        """
import threading, time
count = 0
try:
    while count < 1000:
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
        count += 1
except RuntimeError:
    pass
print("ESCAPED" if count >= 64 else "held")
""",
    ),
    Hostile(
        "leaves_a_daemon",
        """
import os
if not os.fork():
    os.setsid()
    if not os.fork():
        while True: pass
    os._exit(0)
print("held")
""",
    ),
    Hostile(
        "eats_memory",
        "hog = []\nwhile True: hog.append(bytearray(2**24))",
        (MEMORY, EXIT),
    ),
    Hostile(
        "eats_memory_with_many_processes",
        """
import os, time
for _ in range(20):
    if not os.fork():
        hog = bytearray(100 * 2**20)
        time.sleep(60)
time.sleep(60)
""",
        (MEMORY,),
    ),
    Hostile(
        "eats_memory_in_files_without_names",
        """
import os
total = 0
try:
    for _ in range(40):
        fd = os.memfd_create("x")
        for _ in range(16):
            total += os.write(fd, bytes(2**24))
except (OSError, MemoryError):
    pass
print("ESCAPED" if total > 2**31 else "held")
""",
        (MEMORY, OK, SIGNAL),
    ),
    Hostile(
        "eats_shared_memory",
        """
import mmap
maps = []
try:
    while True:
        maps.append(mmap.mmap(-1, 2**26))
        maps[-1].write(bytes(2**26))
except (OSError, MemoryError, ValueError):
    pass
print("ESCAPED" if len(maps) > 40 else "held")
""",
        (MEMORY, OK),
    ),
    Hostile("floods_output", "while True: print('x' * 10_000)", (OUTPUT,)),
    Hostile("floods_errors", "import os\nwhile True: os.write(2, b'x' * 10_000)", (OUTPUT,)),
    Hostile(
        "fills_the_disk",
        """
import os
total = 0
for folder in ("/box", "/tmp", "/dev/shm"):
    for number in range(100):
        try:
            with open(f"{folder}/{number}", "wb") as file:
                for _ in range(100):
                    total += file.write(bytes(2**20))
        except OSError:
            break
print("ESCAPED" if total > 3 * 65 * 2**20 else "held")
""",
        (OK, MEMORY),
    ),
    Hostile(
        "makes_a_huge_sparse_file",
        """
import os
try:
    with open("/box/huge", "wb") as file:
        file.truncate(2**40)
    print("ESCAPED")
except OSError:
    print("held")
""",
        (OK, SIGNAL),
    ),
    Hostile(
        "makes_endless_files",
        "number = 0\nwhile True:\n    open(f'/box/{number}', 'w').close(); number += 1",
        (TIME, EXIT, MEMORY),
    ),
    Hostile(
        "cannot_be_interrupted",
        """
import signal
for number in range(1, 65):
    try: signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError): pass
while True:
    try:
        while True: pass
    except BaseException: pass
""",
        (TIME,),
    ),
)
