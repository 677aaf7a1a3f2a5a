"""Programs that try to get out of the sandbox, or to take more than their share."""

from __future__ import annotations

from tests.hostile.sandbox.base import EXIT, MEMORY, OK, SIGNAL, TIME, Hostile
from tests.hostile.sandbox.greedy import GREEDY

__all__ = ["PROGRAMS", "Hostile"]

# {canary} is a file of the host, {port} a listener there, {socket} and {abstract} unix sockets.
PROGRAMS = (
    *GREEDY,
    Hostile(
        "reads_secrets",
        """
import os
for path in ("{canary}", "/etc/shadow", "/etc/passwd", "/root", "/home", "/proc/1/root/root",
             "/proc/self/root/root", "/usr/../root", "/run", "/var"):
    try:
        found = os.listdir(path) if os.path.isdir(path) else open(path).read()
    except OSError:
        continue
    print("ESCAPED", path, str(found)[:50])
print("held")
""",
    ),
    Hostile(
        "reads_the_servers_environment",
        """
import glob
for path in glob.glob("/proc/*/environ"):
    if b"CANARY" in open(path, "rb").read():
        print("ESCAPED", path)
print("held")
""",
    ),
    Hostile(
        "writes_outside",
        """
import os
for folder in ("/", "/usr", "/usr/lib", "/etc", "/dev", "/proc", "/proc/sys", "/sys", "/job",
               os.path.dirname("{canary}")):
    try:
        os.close(os.open(folder + "/x", os.O_CREAT | os.O_WRONLY))
        print("ESCAPED", folder)
    except OSError:
        pass
print("held")
""",
    ),
    Hostile(
        "uses_the_network",
        """
import socket
for family in (socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK, socket.AF_PACKET, 40):
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW):
        try:
            socket.socket(family, kind)
            print("ESCAPED", family)
        except OSError:
            pass
for address in ("{socket}", "\\0{abstract}", "/var/run/docker.sock"):
    try:
        socket.socket(socket.AF_UNIX).connect(address)
        print("ESCAPED", address)
    except OSError:
        pass
print("held")
""",
    ),
    Hostile(
        "kills_everything",
        """
import os, signal
for pid in (-1, 0, 1, os.getppid(), *range(2, 5000)):
    try: os.kill(pid, signal.SIGTERM if pid in (0, 1) else signal.SIGKILL)
    except OSError: pass
print("held")
""",
        (OK, SIGNAL),
    ),
    Hostile(
        "stops_everything",
        """
import os, signal
if not os.fork():
    for pid in (-1, 1, os.getppid()):
        try: os.kill(pid, signal.SIGSTOP)
        except OSError: pass
    os._exit(0)
os.wait()
print("held")
""",
        (OK, TIME),
    ),
    Hostile(
        "looks_around_in_proc",
        """
import os
pids = [name for name in os.listdir("/proc") if name.isdecimal()]
if pids != ["1"]: print("ESCAPED", pids)
for path in ("/proc/sys/kernel/core_pattern", "/proc/sys/vm/drop_caches", "/proc/sysrq-trigger",
             "/proc/1/oom_score_adj", "/proc/sys/kernel/hostname"):
    try:
        fd = os.open(path, os.O_WRONLY)
        os.write(fd, b"-1000" if "oom" in path else b"x")
        print("ESCAPED", path)
    except OSError: pass
for path in ("/proc/kcore", "/proc/kmsg", "/proc/1/mem"):
    try:
        with open(path, "rb") as file:
            if file.read(1): print("ESCAPED", path)
    except OSError: pass
print("held")
""",
    ),
    Hostile(
        "uses_open_descriptors",
        """
import os
for fd in range(3, 1024):
    try:
        os.fstat(fd)
        print("ESCAPED", fd)
    except OSError: pass
print("held")
""",
    ),
    Hostile(
        "makes_forbidden_system_calls",
        """
import ctypes, errno, os, platform
libc = ctypes.CDLL(None, use_errno=True)
x86 = platform.machine() == "x86_64"
calls = {"unshare": 272 if x86 else 97, "mount": 165 if x86 else 40, "bpf": 321 if x86 else 280,
         "ptrace": 101 if x86 else 117, "keyctl": 250 if x86 else 219, "io_uring": 425,
         "userfaultfd": 323 if x86 else 282, "perf": 298 if x86 else 241, "fsopen": 430,
         "setns": 308 if x86 else 268, "open_tree": 428, "memfd_secret": 447,
         "chroot": 161 if x86 else 51, "kcmp": 312 if x86 else 272,
         "reboot": 169 if x86 else 142, "personality": 135 if x86 else 92}
for name, number in calls.items():
    ctypes.set_errno(0)
    if libc.syscall(number, 0, 0, 0, 0, 0) != -1 or ctypes.get_errno() != errno.EPERM:
        print("ESCAPED", name, ctypes.get_errno())
if libc.syscall(435, 0, 0) != -1 or ctypes.get_errno() != errno.ENOSYS: print("ESCAPED clone3")
if libc.syscall(56 if x86 else 220, 0x10000000 | 17, 0, 0, 0, 0) != -1: print("ESCAPED clone")
print("held")
""",
    ),
    Hostile(
        "pushes_input_into_a_terminal",
        """
import fcntl
for request in (0x5412, 0x541C):
    for fd in (0, 1, 2):
        try:
            fcntl.ioctl(fd, request, b"x")
            print("ESCAPED")
        except OSError as error:
            if error.errno != 1: print("ESCAPED", error)
print("held")
""",
    ),
    Hostile(
        "uses_devices",
        """
import os
allowed = {"null", "zero", "full", "random", "urandom", "tty", "ptmx", "console"}
for name in os.listdir("/dev"):
    path = "/dev/" + name
    if name not in allowed and not os.path.islink(path) and not os.path.isdir(path):
        print("ESCAPED", path)
for kind in (0o020666, 0o060666):
    try:
        os.mknod("/box/device", kind, os.makedev(1, 1))
        print("ESCAPED mknod")
    except OSError: pass
print("held")
""",
    ),
    Hostile(
        "gets_privileges",
        """
import os, subprocess
for call in (os.setuid, os.setgid):
    try:
        call(0)
        print("ESCAPED", call)
    except OSError: pass
for tool in ("/usr/bin/su", "/usr/bin/mount", "/usr/bin/newuidmap", "/usr/bin/passwd"):
    if os.path.exists(tool):
        out = subprocess.run([tool, "--version"], capture_output=True)
try:
    os.open("/usr/bin/python3", os.O_WRONLY)
    print("ESCAPED")
except OSError: pass
status = open("/proc/self/status").read()
if "CapEff:\\t0000000000000000" not in status or "NoNewPrivs:\\t1" not in status: print("ESCAPED")
print("held" if os.getuid() and os.geteuid() else "ESCAPED")
""",
    ),
    Hostile(
        "follows_links_out",
        """
import os
os.symlink("{canary}", "/box/link")
os.symlink("/proc/1/root/../../../..", "/box/up")
for path in ("/box/link", "/box/up/root", "/box/up{canary}"):
    try:
        os.stat(path)
        print("ESCAPED", path)
    except OSError: pass
try:
    os.link("/usr/bin/env", "/box/hard")
    print("ESCAPED hard link")
except OSError: pass
print("held")
""",
    ),
    Hostile(
        "raises_its_limits",
        """
import os, resource
for name in ("RLIMIT_NPROC", "RLIMIT_FSIZE", "RLIMIT_AS", "RLIMIT_NOFILE", "RLIMIT_CORE"):
    kind = getattr(resource, name)
    try:
        resource.setrlimit(kind, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        print("ESCAPED", name)
    except (OSError, ValueError): pass
try:
    os.setpriority(os.PRIO_PROCESS, 0, -5)
    print("ESCAPED nice")
except OSError: pass
print("held" if os.getpriority(os.PRIO_PROCESS, 0) > 0 else "ESCAPED")
""",
    ),
    Hostile(
        "exhausts_descriptors",
        """
import os
fds = []
try:
    while True: fds.append(os.dup(1))
except OSError: pass
print("ESCAPED" if len(fds) > 256 else "held")
""",
    ),
    Hostile(
        "recurses_without_end",
        "import sys\nsys.setrecursionlimit(10**9)\ndef f(): f()\nf()",
        (SIGNAL, MEMORY, EXIT, TIME),
    ),
)
