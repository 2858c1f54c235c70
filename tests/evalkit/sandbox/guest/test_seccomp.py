"""The seccomp filter, run here instruction by instruction, decides as its tables say."""

from __future__ import annotations

import platform
import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from evalkit.sandbox.guest import seccomp

pytestmark = pytest.mark.skipif(not seccomp.supported(), reason=f"no table of calls for {platform.machine()}")

COLUMN, ARCHITECTURE = seccomp._ARCHITECTURES.get(platform.machine(), (0, 0))
ALLOW, KILL, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
EPERM, EACCES, ENOSYS = ERRNO | 1, ERRNO | 13, ERRNO | 38
NAMES = {numbers[COLUMN]: name for name, numbers in (seccomp._ALLOWED | seccomp._GUARDED).items()}
NUMBERS = {name: number for number, name in NAMES.items()}


def decided(number: int, arguments: tuple[int, ...] = (), architecture: int = ARCHITECTURE) -> tuple[int, int]:
    """Return what the filter answers to a call, and after how many instructions (as Linux' filter.txt has it)."""
    data = struct.pack("=IIQ6Q", number, architecture, 0, *arguments, *[0] * (6 - len(arguments)))
    code = list(struct.iter_unpack("=HBBI", seccomp.build_filter()))
    at = loaded = steps = 0
    while True:
        operation, if_true, if_false, constant = code[at]
        at, steps = at + 1, steps + 1
        match operation:
            case 0x20:
                (loaded,) = struct.unpack_from("=I", data, constant)
            case 0x54:
                loaded &= constant
            case 0x15:
                at += if_true if loaded == constant else if_false
            case 0x35:
                at += if_true if loaded >= constant else if_false
            case 0x06:
                return constant, steps
            case _:
                raise AssertionError(f"an instruction that no filter here has: {operation:#x}")


def test_each_call_is_let_through_only_if_it_is_named() -> None:
    for number in range(600):
        answer, steps = decided(number)
        name = NAMES.get(number)
        if name in seccomp._ALLOWED:
            assert answer == ALLOW, name
        elif name is None:
            newer = number > seccomp._NEWEST_KNOWN or number == 435
            assert answer == (ENOSYS if newer else EPERM), number
        assert steps < 25


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
@example(0, 0x40000003)  # the numbers of 32-bit x86 mean other calls
def test_calls_of_another_architecture_end_the_program(number: int, architecture: int) -> None:
    if architecture != ARCHITECTURE:
        assert decided(number, (), architecture)[0] == KILL


@given(st.integers(0x40000000, 2**32 - 1))
def test_x32_calls_do_not_exist(number: int) -> None:
    assert decided(number)[0] == ENOSYS


@given(st.integers(0, 2**64 - 1))
@example(0o2000000)  # O_CLOEXEC
@example(0o1)
@example(0o20000000)
def test_files_open_for_reading_only(flags: int) -> None:
    writes = flags & 0o20003103
    for name, before in (("open", (0,)), ("openat", (0, 0))):
        if name in NUMBERS and NUMBERS[name] is not None:
            assert decided(NUMBERS[name], (*before, flags))[0] == (EACCES if writes else ALLOW)


@given(st.integers(0, 2**64 - 1))
@example(0x00010000)
@example(0)
def test_clone_makes_threads_only(flags: int) -> None:
    assert decided(NUMBERS["clone"], (flags,))[0] == (ALLOW if flags & 0x00010000 else EPERM)


@given(st.integers(0, 2**64 - 1))
@example(0)
@example(1 << 32)
def test_limits_are_read_not_set(new_limit: int) -> None:
    assert decided(NUMBERS["prlimit64"], (0, 0, new_limit))[0] == (EPERM if new_limit else ALLOW)


@given(st.integers(0, 2**64 - 1))
@example(0)
@example(1 << 32)
def test_what_is_sent_names_no_address(address: int) -> None:
    assert decided(NUMBERS["sendto"], (3, 0, 0, 0, address))[0] == (EPERM if address else ALLOW)


@given(st.integers(0, 2**32 - 1))
@example(8)  # F_SETOWN sends signals
@example(0x5412)  # TIOCSTI types into a terminal
@example(38)  # PR_SET_NO_NEW_PRIVS
def test_commands_are_those_listed(command: int) -> None:
    allowed = {
        "fcntl": (1, seccomp._FCNTL_COMMANDS),
        "ioctl": (1, seccomp._IOCTL_COMMANDS),
        "prctl": (0, seccomp._PRCTL_COMMANDS),
    }
    for name, (place, commands) in allowed.items():
        for candidate in (command, *commands):
            answer, _ = decided(NUMBERS[name], (*[0] * place, candidate))
            assert answer == (ALLOW if candidate in commands else EPERM)
