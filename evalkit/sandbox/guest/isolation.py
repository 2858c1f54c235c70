"""Layers of confinement around programs. Each is tried, and each is reported as on or off.

Covered: CPU time, memory, file size, open files and core dumps (resource limits); signals to other processes and
left-over children (own session, no fork, namespaces); gaining rights (no_new_privs, an unprivileged user, no
capabilities); system calls (seccomp, `seccomp.py`); files, TCP and abstract sockets (Landlock); network, process and
IPC namespaces where the machine allows them.

NOT covered: bugs of the kernel itself, timing side channels, load on the machine within the limits. Against programs
that were written to attack you, put a container or a virtual machine around evalkit as well.

The zygote confines itself once (`confine_zygote`), so its children start confined. Each guest adds only the limits that
differ between programs, and the filter that would stop the zygote from forking (`confine_guest`).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import struct
import sys
from functools import cache
from typing import Any, NamedTuple

from evalkit.sandbox.guest import seccomp

NOBODY = 65534
"""User and group id that programs get when evalkit runs as root."""

_NEWNS, _NEWUTS, _NEWIPC, _NEWUSER, _NEWPID, _NEWNET = (
    0x00020000,
    0x04000000,
    0x08000000,
    0x10000000,
    0x20000000,
    0x40000000,
)
_PDEATHSIG, _DUMPABLE, _KEEPCAPS, _SECCOMP, _NO_NEW_PRIVS = 1, 4, 8, 22, 38
_CAP_DAC_READ_SEARCH = 1 << 2
_SYS_CAPSET = {"x86_64": 126, "aarch64": 91}
_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446
_READ_FILE, _READ_DIR, _WRITE_FILE = 1 << 2, 1 << 3, 1 << 1


class Layer(NamedTuple):
    """One layer of confinement on this machine."""

    name: str
    on: bool
    detail: str
    """What it protects, or why it is off."""

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as results hold them."""
        return self._asdict()


@cache
def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]
    return libc


def _prctl(option: int, first: int, second: int = 0) -> None:
    if _libc().prctl(option, first, second, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def die_with_parent() -> None:
    """Ask the kernel to kill this process when its parent dies; a refusal is not an error."""
    _libc().prctl(_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def hide_memory() -> None:
    """Make this process' memory unreadable for other processes of the same user (/proc/PID/mem, ptrace)."""
    with contextlib.suppress(OSError):
        _prctl(_DUMPABLE, 0)


def enter_namespaces() -> list[Layer]:
    """Enter new network, IPC and process namespaces; the next fork is process 1 of the new one."""
    libc, spaces = _libc(), _NEWNET | _NEWIPC | _NEWUTS | _NEWPID
    user, group = os.getuid(), os.getgid()
    how = "as root" if user == 0 else "in a user namespace"
    failed = libc.unshare(spaces) if user == 0 else -1
    if failed and user != 0:
        failed = libc.unshare(spaces | _NEWUSER)
        if not failed:
            maps = (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1"))
            for name, text in maps:
                with contextlib.suppress(OSError):
                    _write(f"/proc/self/{name}", text)
    if failed:
        why = os.strerror(ctypes.get_errno())
        return [Layer(name="namespaces", on=False, detail=f"not allowed here ({why})")]
    return [Layer(name="namespaces", on=True, detail=f"own network, IPC, host name and process ids, {how}")]


def confine_zygote(*, readable: list[str], import_paths: list[str]) -> list[Layer]:
    """Confine this process and all its forks.

    Args:
        readable: Extra paths that programs may read; those that do not exist are left out.
        import_paths: Folders that programs may read and import from.
    """
    layers = []
    with contextlib.suppress(OSError):  # when memory runs out, the kernel kills a program, not evalkit
        _write("/proc/self/oom_score_adj", "1000")
    ruleset, why_not = _landlock_ruleset([*readable, *import_paths])
    shut_out = os.getuid() == 0 and any(map(_nobody_is_shut_out, (os.path.dirname(os.__file__), *import_paths)))
    layers.append(_drop_user(shut_out=shut_out, landlock=ruleset is not None))
    try:
        _prctl(_NO_NEW_PRIVS, 1)
        layers.append(Layer(name="no_new_privs", on=True, detail="no set-user-id program gives rights"))
    except OSError as error:
        layers.append(Layer(name="no_new_privs", on=False, detail=str(error)))
    layers.append(_landlock_restrict(ruleset, why_not))
    _drop_capabilities(keep=_CAP_DAC_READ_SEARCH if shut_out and layers[-1].on else 0)
    for limit, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
        (resource.RLIMIT_NPROC, 256 if os.getuid() == NOBODY else 4096),
    ):
        hard = resource.getrlimit(limit)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (value, value))
    layers.append(Layer(name="limits", on=True, detail="CPU time, memory, file size, open files, core dumps"))
    layers.append(Layer(name="session", on=True, detail="own session; killed as a group and with its parent"))
    return layers


def confine_guest(*, cpu_s: int, memory_bytes: int) -> None:
    """Confine this forked guest by its own limits, then by seccomp.

    Args:
        cpu_s: CPU time, in seconds.
        memory_bytes: Address space.

    Raises:
        OSError: A limit was refused. A missing seccomp is not an error here: `probe_seccomp` reported it.
    """
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s + 1))
    if _filter():
        with contextlib.suppress(OSError):
            _install_seccomp()


def probe_seccomp() -> Layer:
    """Install the filter in a child process and check that it holds."""
    if not _filter():
        return Layer(name="seccomp", on=False, detail=f"no table of calls for {os.uname().machine}")
    child = os.fork()
    if child == 0:
        code = 1
        with contextlib.suppress(OSError):
            _install_seccomp()
            try:
                os.fork()
            except PermissionError:
                code = 0
        os._exit(code)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0:
        return Layer(name="seccomp", on=True, detail="computing only: no process, socket, signal or write")
    return Layer(name="seccomp", on=False, detail="the kernel or an outer sandbox refused the filter")


def warm_up() -> None:
    """Build the filter and load libc once, before forking: every guest needs both."""
    _filter()
    _libc()


@cache
def _filter() -> tuple[int, Any, Any] | None:
    """Return the address of the filter's header and the buffers that it points to; None where there is no filter."""
    if not seccomp.supported():
        return None
    code = seccomp.build_filter()
    buffer = ctypes.create_string_buffer(code, len(code))
    header = ctypes.create_string_buffer(struct.pack("@HxxxxxxP", len(code) // 8, ctypes.addressof(buffer)))
    return ctypes.addressof(header), header, buffer


def _install_seccomp() -> None:
    header_and_buffers = _filter()
    assert header_and_buffers is not None
    _prctl(_SECCOMP, 2, header_and_buffers[0])


def _drop_user(*, shut_out: bool, landlock: bool) -> Layer:
    """Become nobody when root. Without Landlock, stay root if nobody cannot read the standard library."""
    if os.getuid() != 0:
        return Layer(name="user", on=True, detail=f"user {os.getuid()}, not root, no capabilities")
    if shut_out and not landlock:
        return Layer(name="user", on=False, detail="root without capabilities: nobody cannot read Python's library")
    try:
        _prctl(_KEEPCAPS, 1)
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    except OSError as error:
        return Layer(name="user", on=False, detail=f"still root: {error.strerror}")
    return Layer(name="user", on=True, detail=f"user {NOBODY} (nobody), no capability to change anything")


def _nobody_is_shut_out(folder: str) -> bool:
    """Say whether user nobody cannot read what lies in `folder`, such as the library of a Python under /root."""
    path = os.path.realpath(folder)
    while os.stat(path).st_mode & 0o001:
        if path == "/":
            return False
        path = os.path.dirname(path)
    return True


def _drop_capabilities(*, keep: int) -> None:
    """Keep at most the right to read files of other users; Landlock still decides which files."""
    header = ctypes.create_string_buffer(struct.pack("=Ii", 0x20080522, 0))
    sets = ctypes.create_string_buffer(struct.pack("=6I", keep, keep, 0, 0, 0, 0))
    number = _SYS_CAPSET.get(os.uname().machine)
    if number is not None:
        _libc().syscall(number, header, sets)


def readable_paths(extra: list[str]) -> list[tuple[str, bool]]:
    """Return (path, folder listing only) of all that programs may read: Python's library, shared libraries, `extra`.

    Installed packages are left out on purpose: one of them holds the reference solutions.
    """
    library = os.path.dirname(os.__file__)
    paths = [(library, True)]
    for name in sorted(os.listdir(library)):
        if name not in ("site-packages", "dist-packages"):
            paths.append((f"{library}/{name}", False))
    for root in (f"{sys.base_prefix}/lib", "/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib"):
        if os.path.isdir(root):
            names = [name for name in sorted(os.listdir(root)) if name.endswith("-linux-gnu") or ".so" in name]
            paths += [(f"{root}/{name}", False) for name in names]
    system = ["/usr/share/zoneinfo", "/etc/localtime", "/etc/ld.so.cache", "/sys/devices/system/cpu"]
    system += ["/usr/lib/locale", "/etc/os-release", "/usr/lib/os-release", "/etc/mime.types"]
    devices = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")
    return [*paths, *((path, False) for path in (*system, *devices, *extra))]


def _landlock_ruleset(readable: list[str]) -> tuple[int | None, str]:
    """Open a ruleset that allows only `readable_paths`; also return its version, or why there is none."""
    libc = _libc()
    version = libc.syscall(_LANDLOCK_CREATE, None, ctypes.c_size_t(0), ctypes.c_uint(1))
    if version < 1:
        return None, f"not in this kernel, or switched off ({os.strerror(ctypes.get_errno())})"
    # File rights by version: 13 at first, REFER with 2, TRUNCATE with 3, IOCTL_DEV with 5.
    files = (1 << (13 + (version >= 2) + (version >= 3) + (version >= 5))) - 1
    attributes = struct.pack("=QQQ", files, 0b11 if version >= 4 else 0, 0b11 if version >= 6 else 0)
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    ruleset = libc.syscall(_LANDLOCK_CREATE, ctypes.c_char_p(attributes), ctypes.c_size_t(size), ctypes.c_uint(0))
    if ruleset < 0:
        return None, f"refused ({os.strerror(ctypes.get_errno())})"
    for path, listing_only in readable_paths(readable):
        try:
            descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue  # absent on this machine; a path without a rule stays closed
        rights = _READ_DIR if listing_only else _READ_FILE
        if not listing_only and os.path.isdir(path):
            rights |= _READ_DIR
        rule = struct.pack("=Qi", rights, descriptor)
        libc.syscall(_LANDLOCK_ADD, ruleset, 1, ctypes.c_char_p(rule), ctypes.c_uint(0))
        os.close(descriptor)
    return ruleset, f"version {version}: reads Python's library only; no writes, TCP or foreign signals"


def _landlock_restrict(ruleset: int | None, detail: str) -> Layer:
    if ruleset is None:
        return Layer(name="landlock", on=False, detail=detail)
    failed = _libc().syscall(_LANDLOCK_RESTRICT, ruleset, ctypes.c_uint(0))
    why = os.strerror(ctypes.get_errno())
    os.close(ruleset)
    if failed:
        return Layer(name="landlock", on=False, detail=f"refused ({why})")
    return Layer(name="landlock", on=True, detail=detail)
