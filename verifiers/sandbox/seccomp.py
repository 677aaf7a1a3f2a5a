"""The system calls that a sandboxed program may not make, as a seccomp filter in BPF.

A deny-list: what could widen the view of the system, reach into other processes or touch kernel
machinery that programs do not need. Calls of another architecture kill.

Source: seccomp(2), linux/bpf_common.h; call numbers from asm/unistd_64.h and asm-generic/unistd.h.
"""

from __future__ import annotations

import errno
import platform
import struct

from samplewise.verifiers.sandbox.base import SandboxUnavailable

__all__ = ["seccomp_filter"]

# name: (x86_64, aarch64); None where the architecture has no such call.
_DENIED: dict[str, tuple[int | None, int | None]] = {
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "kcmp": (312, 272),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "open_by_handle_at": (304, 265),
    "name_to_handle_at": (303, 264),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "reboot": (169, 142),
    "acct": (163, 89),
    "syslog": (103, 116),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "clock_adjtime": (305, 266),
    "adjtimex": (159, 171),
    "iopl": (172, None),
    "ioperm": (173, None),
    "modify_ldt": (154, None),
    "personality": (135, 92),
    "pidfd_getfd": (438, 438),
    "vmsplice": (278, 75),
    "memfd_secret": (447, 447),
    "fanotify_init": (300, 262),
    "fanotify_mark": (301, 263),
    "landlock_create_ruleset": (444, 444),
    "landlock_add_rule": (445, 445),
    "landlock_restrict_self": (446, 446),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "vhangup": (153, 58),
    "uselib": (134, None),
}
# What stays when all processes of a program are gone, or is found by others by a number.
_SHARED: dict[str, tuple[int | None, int | None]] = {
    "shmget": (29, 194),
    "semget": (64, 190),
    "msgget": (68, 186),
    "mq_open": (240, 180),
}
_CLONE = (56, 220)
_CLONE3 = 435
_SOCKET = (41, 198)
_IOCTL = (16, 29)
_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}

_X32 = 0x40000000
_AF_UNIX = 1
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C
# CLONE_NEWNS, CGROUP, UTS, IPC, USER, PID, NET, TIME
_NEW_NAMESPACES = 0x00020000 | 0x7E000000 | 0x00000080

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_NUMBER, _ARCH = 0, 4


def _argument(index: int) -> int:
    # The low half: the values that are looked at fit into 32 bits, and the kernel reads no more.
    return 16 + 8 * index


def _error(number: int) -> int:
    return _ERRNO | number


def _instruction(code: int, value: int, yes: int = 0, no: int = 0) -> bytes:
    return struct.pack("=HBBI", code, yes, no, value)


def seccomp_filter(
    machine: str = "", *, allowed: frozenset[str] = frozenset(), alone: bool = False
) -> bytes:
    """Return the filter for a machine as `platform.machine()` names it; default: this one.

    `allowed` names calls of the list that are not refused. `alone` is for where no namespaces keep
    programs apart: no sockets but pairs, and nothing that outlives the processes.

    Raises:
        SandboxUnavailable: the machine is neither x86_64 nor aarch64.
    """
    machine = machine or platform.machine()
    if machine not in _ARCHITECTURES:
        raise SandboxUnavailable(
            f"the sandbox knows the system calls of x86_64 and aarch64, not of {machine}:"
            " run code verifiers on such a machine"
        )
    column, arch = _ARCHITECTURES[machine]
    lines = [
        _instruction(_LOAD, _ARCH),
        _instruction(_EQUAL, arch, 1, 0),
        _instruction(_RETURN, _KILL),
        _instruction(_LOAD, _NUMBER),
    ]
    if machine == "x86_64":
        lines += [_instruction(_AT_LEAST, _X32, 0, 1), _instruction(_RETURN, _KILL)]
    denied = _DENIED | _SHARED if alone else _DENIED
    for name, numbers in denied.items():
        number = numbers[column]
        if number is not None and name not in allowed:
            lines += _refuse(number, errno.EPERM)
    # The C library falls back on clone, whose flags can be looked at.
    lines += _refuse(_CLONE3, errno.ENOSYS)
    lines += _looking(_CLONE[column], 0, [(_ANY_BIT, _NEW_NAMESPACES, errno.EPERM)])
    lines += _looking(
        _IOCTL[column], 1, [(_EQUAL, _TIOCSTI, errno.EPERM), (_EQUAL, _TIOCLINUX, errno.EPERM)]
    )
    if alone:
        lines += _refuse(_SOCKET[column], errno.EAFNOSUPPORT)
    lines += [
        _instruction(_EQUAL, _SOCKET[column], 0, 3),
        _instruction(_LOAD, _argument(0)),
        _instruction(_EQUAL, _AF_UNIX, 1, 0),
        _instruction(_RETURN, _error(errno.EAFNOSUPPORT)),
        _instruction(_RETURN, _ALLOW),
    ]
    return b"".join(lines)


def _refuse(number: int, error: int) -> list[bytes]:
    return [_instruction(_EQUAL, number, 0, 1), _instruction(_RETURN, _error(error))]


def _looking(number: int, argument: int, rules: list[tuple[int, int, int]]) -> list[bytes]:
    """Return the lines for one call whose argument decides; they end the filter for that call."""
    inner = [_instruction(_LOAD, _argument(argument))]
    for test, value, error in rules:
        inner += [_instruction(test, value, 0, 1), _instruction(_RETURN, _error(error))]
    inner.append(_instruction(_RETURN, _ALLOW))
    return [_instruction(_EQUAL, number, 0, len(inner)), *inner]
