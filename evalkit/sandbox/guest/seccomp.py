"""The seccomp filter: the system calls that a program may make. It is built here, without a dependency.

The filter is an allow-list of the calls that pure computation in CPython needs. Every other call fails with EPERM, or
with ENOSYS where libc has a fallback, so the program sees an ordinary OSError. Some calls are allowed for one use only:
`open` for reading, `clone` for threads, `fcntl` without signals.

Numbers are for x86-64 and for AArch64 (the kernel's asm-generic table), from Linux' unistd headers.
NOT limited here: paths (by Landlock), memory and time (by resource limits).
"""

from __future__ import annotations

import os
import struct
from functools import cache

_ALLOWED: dict[str, tuple[int | None, int | None]] = {
    "read": (0, 63), "write": (1, 64), "readv": (19, 65), "writev": (20, 66), "pread64": (17, 67),
    "close": (3, 57), "fstat": (5, 80), "lseek": (8, 62), "mmap": (9, 222), "munmap": (11, 215),
    "mprotect": (10, 226), "mremap": (25, 216), "brk": (12, 214), "madvise": (28, 233),
    "futex": (202, 98), "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139), "sigaltstack": (131, 132), "restart_syscall": (219, 128),
    "set_robust_list": (273, 99), "rseq": (334, 293), "membarrier": (324, 283),
    "clock_gettime": (228, 113), "clock_getres": (229, 114), "clock_nanosleep": (230, 115),
    "nanosleep": (35, 101), "gettimeofday": (96, 169), "time": (201, None), "getrandom": (318, 278),
    "exit": (60, 93), "exit_group": (231, 94), "sched_yield": (24, 124),
    "sched_getaffinity": (204, 123), "getcpu": (309, 168), "getpid": (39, 172), "gettid": (186, 178),
    "getppid": (110, 173), "getuid": (102, 174), "geteuid": (107, 175), "getgid": (104, 176),
    "getegid": (108, 177), "getgroups": (115, 158), "getpgid": (121, 155), "getpgrp": (111, None),
    "getsid": (124, 156), "getcwd": (79, 17), "stat": (4, None), "lstat": (6, None),
    "newfstatat": (262, 79), "statx": (332, 291), "access": (21, None), "faccessat": (269, 48),
    "faccessat2": (439, 439), "readlink": (89, None), "readlinkat": (267, 78), "getdents": (78, None),
    "getdents64": (217, 61), "dup": (32, 23), "dup2": (33, None), "dup3": (292, 24),
    "pipe": (22, None), "pipe2": (293, 59), "poll": (7, None), "ppoll": (271, 73),
    "select": (23, None), "pselect6": (270, 72), "epoll_create1": (291, 20), "epoll_ctl": (233, 21),
    "epoll_wait": (232, None), "epoll_pwait": (281, 22), "eventfd2": (290, 19),
    "socketpair": (53, 199), "recvfrom": (45, 207), "shutdown": (48, 210), "chdir": (80, 49),
    "fchdir": (81, 50), "umask": (95, 166), "uname": (63, 160), "sysinfo": (99, 179),
    "times": (100, 153), "getrusage": (98, 165), "getrlimit": (97, 163), "getpriority": (140, 141),
    "alarm": (37, None), "setitimer": (38, 103), "getitimer": (36, 102), "fadvise64": (221, 223),
    "statfs": (137, 43), "fstatfs": (138, 44), "set_tid_address": (218, 96), "arch_prctl": (158, None),
    "sched_getparam": (143, 121), "sched_getscheduler": (145, 120), "sched_get_priority_max": (146, 125),
    "sched_get_priority_min": (147, 126), "rt_sigpending": (127, 136), "rt_sigtimedwait": (128, 137),
    "rt_sigsuspend": (130, 133), "pause": (34, None), "mlock": (149, 228), "munlock": (150, 229), "mincore": (27, 232),
}  # fmt: skip
"""Calls that are allowed with any arguments: (x86-64, AArch64)."""

_GUARDED: dict[str, tuple[int | None, int | None]] = {
    "open": (2, None), "openat": (257, 56), "clone": (56, 220), "fcntl": (72, 25), "ioctl": (16, 29),
    "prctl": (157, 167), "prlimit64": (302, 261), "sendto": (44, 206),
}  # fmt: skip
"""Calls that are allowed with some arguments only."""

_NEWEST_KNOWN = 462  # later calls fail with ENOSYS, and so does clone3, whose flags a filter cannot read
_CLONE3 = 435

Body = list[tuple[int, int, int, int]]
"""Instructions: (operation, jump if true, jump if false, constant)."""

_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column, AUDIT_ARCH_*

_EPERM, _ENOSYS, _EACCES = 1, 38, 13
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000  # SECCOMP_RET_*
_LOAD, _AND, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x54, 0x15, 0x35, 0x06  # BPF_LD|W|ABS and friends

# O_WRONLY | O_RDWR | O_CREAT | O_TRUNC | O_APPEND, and the bit that sets O_TMPFILE apart from O_DIRECTORY
_OPEN_WRITES = 0o1 | 0o2 | 0o100 | 0o1000 | 0o2000 | 0o20000000
_CLONE_THREAD = 0x00010000
# F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_DUPFD_CLOEXEC.
# Not F_SETOWN and F_SETSIG: together they send any signal to any process of the same user.
_FCNTL_COMMANDS = (0, 1, 2, 3, 4, 1030)
# TCGETS, TIOCGWINSZ, FIONBIO, FIONREAD, FIONCLEX, FIOCLEX
_IOCTL_COMMANDS = (0x5401, 0x5413, 0x5421, 0x541B, 0x5450, 0x5451)
_PRCTL_COMMANDS = (15, 16)  # PR_SET_NAME, PR_GET_NAME


def supported() -> bool:
    """Say whether this module knows the call numbers of this processor."""
    return os.uname().machine in _ARCHITECTURES


@cache
def build_filter() -> bytes:
    """Return the BPF program for this machine: an array of `struct sock_filter`, 8 bytes each.

    Raises:
        KeyError: The processor is neither x86-64 nor AArch64 (call `supported` first).
    """
    column, architecture = _ARCHITECTURES[os.uname().machine]
    bodies = {numbers[column]: _answer(_ALLOW) for numbers in _ALLOWED.values()}
    bodies |= {_GUARDED[name][column]: body for name, body in _guards().items()}
    bodies[_CLONE3] = _answer(_ERRNO | _ENOSYS)
    starts: list[tuple[int, Body]] = []
    for number in range(_NEWEST_KNOWN + 1):
        body = bodies.get(number, _answer(_ERRNO | _EPERM))
        if not starts or starts[-1][1] != body:
            starts.append((number, body))
    # A number with the x32 bit, or of a call newer than this table, fails as if the kernel did not have the call.
    starts.append((_NEWEST_KNOWN + 1, _answer(_ERRNO | _ENOSYS)))
    foreign = [(_LOAD, 0, 0, 4), (_EQUAL, 1, 0, architecture), *_answer(_KILL)]
    code = [*foreign, (_LOAD, 0, 0, 0), *_search(starts)]
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code)


def _search(starts: list[tuple[int, Body]]) -> Body:
    """Return a binary search for the body that holds from its number on.

    The kernel walks a new filter once per system call. With a linear search, this walk took most of the time of
    installing the filter.
    """
    if len(starts) == 1:
        return starts[0][1]
    middle = len(starts) // 2
    below = _search(starts[:middle])
    return [(_AT_LEAST, len(below), 0, starts[middle][0]), *below, *_search(starts[middle:])]


def _answer(action: int) -> Body:
    return [(_RETURN, 0, 0, action)]


def _guards() -> dict[str, Body]:
    """Return the instructions that decide on each guarded call; every path returns."""
    return {
        "open": _masked(1, _OPEN_WRITES, 0, refusal=_EACCES),
        "openat": _masked(2, _OPEN_WRITES, 0, refusal=_EACCES),
        "clone": _masked(0, _CLONE_THREAD, _CLONE_THREAD, refusal=_EPERM),
        "fcntl": _one_of(1, _FCNTL_COMMANDS),
        "ioctl": _one_of(1, _IOCTL_COMMANDS),
        "prctl": _one_of(0, _PRCTL_COMMANDS),
        # A program may read a limit (the third argument, the new limit, is NULL), and not set one.
        "prlimit64": _null(2),
        # A program may send over its own pair of sockets (the fifth argument, an address, is NULL), as asyncio does.
        "sendto": _null(4),
    }


def _null(argument: int) -> Body:
    """Allow when all 64 bits of `argument` are zero."""
    return [
        (_LOAD, 0, 0, 16 + 8 * argument),
        (_EQUAL, 0, 3, 0),
        (_LOAD, 0, 0, 16 + 8 * argument + 4),
        (_EQUAL, 0, 1, 0),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _ERRNO | _EPERM),
    ]


def _masked(argument: int, mask: int, expected: int, *, refusal: int) -> Body:
    """Allow when the low word of `argument` under `mask` equals `expected` (little-endian machines)."""
    return [
        (_LOAD, 0, 0, 16 + 8 * argument),
        (_AND, 0, 0, mask),
        (_EQUAL, 0, 1, expected),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _ERRNO | refusal),
    ]


def _one_of(argument: int, values: tuple[int, ...]) -> Body:
    """Allow when the low word of `argument` is one of `values`."""
    code = [(_LOAD, 0, 0, 16 + 8 * argument)]
    for value in values:
        code += [(_EQUAL, 0, 1, value), (_RETURN, 0, 0, _ALLOW)]
    return [*code, (_RETURN, 0, 0, _ERRNO | _EPERM)]
