"""The hostile programs for Landlock: the same, but for those that look at what it does not hide.

Without namespaces there is no file system of its own: `/proc` and `/dev` are the machine's and
closed, and nothing can be written, so these programs try to open what the others find missing.
"""

from __future__ import annotations

from collections.abc import Mapping

from tests.hostile.sandbox.programs import PROGRAMS, Hostile

__all__ = ["WITH_LANDLOCK"]

_OWN: Mapping[str, str] = {
    "looks_around_in_proc": """
import os
for path in ("/proc", "/proc/self", "/proc/1", "/proc/self/fd", "/sys", "/dev"):
    try:
        os.listdir(path)
        print("ESCAPED", path)
    except OSError: pass
for path in ("/proc/sys/kernel/core_pattern", "/proc/sys/vm/drop_caches", "/proc/sysrq-trigger",
             "/proc/self/oom_score_adj", "/proc/sys/kernel/hostname", "/proc/self/mem",
             f"/proc/{os.getppid()}/mem"):
    for how in (os.O_RDONLY, os.O_WRONLY):
        try:
            os.open(path, how)
            print("ESCAPED", path)
        except OSError: pass
for path in ("/proc/kcore", "/proc/kmsg", "/proc/1/mem", "/proc/1/environ", "/proc/self/status",
             f"/proc/{os.getppid()}/environ"):
    try:
        os.open(path, os.O_RDONLY)
        print("ESCAPED", path)
    except OSError: pass
print("held")
""",
    "uses_devices": """
import os
for name in ("mem", "kmsg", "kvm", "fuse", "net/tun", "tty", "ptmx", "console", "random", "vda",
             "full"):
    for how in (os.O_RDONLY, os.O_WRONLY):
        try:
            os.open("/dev/" + name, how)
            print("ESCAPED", name)
        except OSError: pass
os.write(os.open("/dev/null", os.O_WRONLY), b"x")
for folder in ("/tmp", "/dev/shm", "/var/tmp", "/run/lock"):
    for kind in (0o020666, 0o060666, 0o010666, 0o100666):
        try:
            os.mknod(folder + "/device", kind, os.makedev(1, 1))
            print("ESCAPED mknod", folder)
        except OSError: pass
print("held")
""",
    "gets_privileges": """
import ctypes, os, subprocess
for call in (os.setuid, os.setgid):
    try:
        call(0)
        print("ESCAPED", call)
    except OSError: pass
for tool in ("/usr/bin/su", "/usr/bin/mount", "/usr/bin/passwd"):
    if os.path.exists(tool):
        subprocess.run([tool, "--version"], capture_output=True)
try:
    os.open("/usr/bin/python3", os.O_WRONLY)
    print("ESCAPED")
except OSError: pass
libc = ctypes.CDLL(None)
header, sets = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
libc.capget(ctypes.byref(header), ctypes.byref(sets))
if any(sets) or libc.prctl(39, 0, 0, 0, 0) != 1: print("ESCAPED", list(sets))
print("held" if os.getuid() and os.geteuid() and not os.getgroups() else "ESCAPED")
""",
    # That a file is there, and how large it is, Landlock tells; docs/security.md says so.
    "follows_links_out": """
import os
os.stat("{canary}")
for path in ("{canary}", "/proc/self/root{canary}", "/proc/1/root/etc/passwd", "/etc/passwd"):
    try:
        os.open(path, os.O_RDONLY)
        print("ESCAPED", path)
    except OSError: pass
for make in (os.symlink, os.link, os.rename):
    for folder in ("/tmp", "/dev/shm", "/var/tmp", os.path.dirname("{canary}")):
        try:
            make("{canary}", folder + "/link")
            print("ESCAPED", make, folder)
        except OSError: pass
try:
    os.truncate("{canary}", 0)
    print("ESCAPED truncate")
except OSError: pass
print("held")
""",
}

_MORE = (
    Hostile(
        "leaves_what_outlives_it",
        """
import ctypes, errno, platform, socket
libc = ctypes.CDLL(None, use_errno=True)
x86 = platform.machine() == "x86_64"
for number in (29, 64, 68, 240) if x86 else (194, 190, 186, 180):  # shm, sem, msg, mq
    if libc.syscall(number, 0, 4096, 0o1600, 0) != -1 or ctypes.get_errno() != errno.EPERM:
        print("ESCAPED", number)
socket.socketpair()
try:
    socket.socket(socket.AF_UNIX)
    print("ESCAPED")
except OSError: pass
print("held")
""",
    ),
    Hostile(
        "changes_limits_of_others",
        """
import os, resource
for pid in (1, os.getppid(), *range(2, 5000)):
    if pid == os.getpid(): continue
    try:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (0, 0))
        print("ESCAPED prlimit", pid)
    except OSError: pass
    try:
        os.sched_setaffinity(pid, {0})
        print("ESCAPED affinity", pid)
    except OSError: pass
print("held")
""",
    ),
)

WITH_LANDLOCK = (
    *(Hostile(each.name, _OWN.get(each.name, each.source), each.ends) for each in PROGRAMS),
    *_MORE,
)
