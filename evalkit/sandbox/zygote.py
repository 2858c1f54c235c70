"""Where do programs start? In a warm, confined interpreter that forks: a millisecond instead of a start-up.

Started by a judge as `python -I -S`, before anything heavy, single-threaded, with one control socket. It never
sees a test: those stay in the judge's memory. Control messages:

    zygote -> judge   a JSON line of layers           once, when ready
    judge -> zygote   `START` + a socket              fork a program on that socket, within CPU seconds and bytes
    judge -> zygote   `KILL`                          end it, with its session
    zygote -> judge   `ENDED`                         it ended: exit status, CPU seconds

They are this bare because of pages: what this process touches between two forks is copied once more.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import signal
import socket
import struct
import sys
from contextlib import suppress

from evalkit.sandbox import child, confine

WARM = """
    abc bisect collections collections.abc contextlib copy dataclasses decimal enum fractions functools heapq inspect
    io itertools json linecache math operator random re string struct sys textwrap time traceback types typing
"""
"""Modules imported before the first fork: what solutions import most. The rest is theirs to import: every library
that is mapped here makes each fork and each exit dearer (hashlib, datetime and seven more: by a fifth)."""


START, KILL, ENDED = struct.Struct("=IQ"), b"kill", struct.Struct("=id")
_DESCRIPTOR = struct.Struct("=i")


def main(control_descriptor: int, *, numpy_folder: str) -> None:
    """Serve one judge; `numpy_folder` is where numpy is installed, or empty to go without it."""
    control = socket.socket(fileno=control_descriptor)
    for name in WARM.split():
        importlib.import_module(name)
    readable = _import_numpy(numpy_folder) if numpy_folder else []
    layers = confine.enter_namespaces()
    if layers[0].on and (inner := os.fork()):  # this process cannot enter the new process namespace itself
        control.close()
        os._exit(min(255, abs(os.waitstatus_to_exitcode(os.waitpid(inner, 0)[1]))))
    null = os.open(os.devnull, os.O_RDWR)
    layers += confine.confine_zygote(readable=readable)
    confine.die_with_parent()  # after the change of user, which clears it
    layers.append(confine.probe_seccomp())
    confine.warm_up()
    gc.collect()
    gc.freeze()  # the children's collector leaves these pages shared
    control.sendall(json.dumps([layer.as_dict() for layer in layers]).encode() + b"\n")
    with suppress(ConnectionError):
        _serve(control, null)


def _serve(control: socket.socket, null: int) -> None:
    program, room = 0, socket.CMSG_SPACE(_DESCRIPTOR.size)
    while True:
        data, parts, _, _ = control.recvmsg(START.size, room)
        if not data:  # the judge is gone
            if program:
                _end(program)
            return
        if data == KILL:
            control.sendall(_end(program))
            program = 0
            continue
        (channel,) = _DESCRIPTOR.unpack(parts[0][2])
        program = os.fork()
        if program == 0:
            _become_program(channel, null, *START.unpack(data))
        os.close(channel)


def _become_program(channel: int, null: int, cpu_s: int, memory_bytes: int) -> None:
    """Turn this fork into the untrusted side; never returns."""
    try:
        os.setsid()
        confine.die_with_parent()
        for target in (0, 1, 2):
            os.dup2(null, target)
        os.dup2(channel, 3)
        os.closerange(4, 64)
        os.chdir("/")
        confine.confine_program(cpu_s=cpu_s, memory_bytes=memory_bytes)
        child.serve(3)
    finally:
        os._exit(0)  # exit handlers of the zygote are not the program's to run


def _end(program: int) -> bytes:
    """Kill the program and its session, collect it, and say what it used."""
    try:
        os.killpg(program, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):  # it has not become a session of its own yet
        os.kill(program, signal.SIGKILL)
    _, status, usage = os.wait4(program, 0)
    return ENDED.pack(os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime)


def _import_numpy(folder: str) -> list[str]:
    """Import numpy from `folder` and return the paths that its lazy parts are read from."""
    sys.path.append(folder)
    try:
        importlib.import_module("numpy")
        importlib.import_module("numpy.random")
    except ImportError:
        return []
    finally:
        sys.path.remove(folder)
    return [os.path.join(folder, "numpy"), os.path.join(folder, "numpy.libs")]
