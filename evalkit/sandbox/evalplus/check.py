"""The check on EvalPlus' inputs: a program's answers beside the reference's, in EvalPlus' time limits.

`CheckJob.inputs` names a row of EvalPlus' data: {"path", "sha256", "task_id", "cache", "machine", "quick"?}. "quick"
asks only for inputs on which the reference takes little time. All inputs are sent at once, and answers come back in
frames (`batches.py`). Most answers equal the expected ones byte by byte. Only the others are decoded and compared by
EvalPlus' rules (`rules.py`). Limits count the CPU time of the guest (`host/cpu_meter.py`).
"""

from __future__ import annotations

import sys
from typing import Any

from evalkit.sandbox.evalplus.batches import FLUSH_S, OTHER, split
from evalkit.sandbox.evalplus.rules import ANY_OBJECT, agrees
from evalkit.sandbox.evalplus.task import SUITES, PlusTask, Suite, load
from evalkit.sandbox.guest.zygote import import_numpy
from evalkit.sandbox.host.assertion_check import AssertionCheck
from evalkit.sandbox.host.cpu_meter import CpuLimitError, CpuMeter
from evalkit.sandbox.host.guest_exit import PASS, Outcome
from evalkit.sandbox.host.session import Session, short_repr
from evalkit.sandbox.wire.messages import ChannelError, frame, pack

_SLACK_S = FLUSH_S + 0.05
"""CPU time of a frame beside its last call: the calls before it, and writing the answers."""
_TOTAL_SLACK_S = 2.0
"""CPU time beyond a suite's total: EvalPlus waits that much longer."""
_REWRITE_S = 30.0
"""CPU seconds for writing answers again in JSON, which is not the program's work."""
_MORE = pack({"more": True})


class DifferentialCheck:
    """The check of one job on EvalPlus' inputs (`CheckJob.inputs`)."""

    def __init__(self, job: dict[str, Any], *, suites: tuple[str, ...] = SUITES, numpy_folder: str) -> None:
        """Check `job` on the inputs of `suites`; `numpy_folder` is the folder of numpy, which tolerances need."""
        self._job, self._suites, self._numpy_folder = job, suites, numpy_folder
        self.base_passed = False
        """The task's own inputs passed."""
        self._detail = ""  # why the last comparison failed

    def run(self, session: Session) -> Outcome:
        """Start the program and compare every answer with the reference's.

        Raises:
            Exception: The check failed; `outcome_of` names the reason.
        """
        inputs = self._job["inputs"]
        try:
            task = load(inputs["path"], inputs["sha256"], inputs["task_id"], inputs["cache"], inputs.get("machine", ""))
        except MemoryError:
            return Outcome("infra_error", "the reference needs more memory than a checker may have")
        meter = CpuMeter(session, slack_s=_SLACK_S, total_slack_s=_TOTAL_SLACK_S)
        suites = [suite for suite in task.suites if suite.name in self._suites]
        if inputs.get("quick"):
            suites = [suite.quick() for suite in suites]
        try:
            for number, suite in enumerate(suites):
                meter.begin(suite.total_s)
                if number == 0:
                    program = {"program": self._job["program"], "names": self._job["entry_points"], "after": ""}
                    session.value(meter.start(program))
                passed = self._run_suite(meter, task, suite)
                if suite.name == "base":
                    self.base_passed = passed
                if not passed:
                    return Outcome("wrong", self._detail)
        except CpuLimitError as error:
            return error.outcome
        except ChannelError as error:
            session.failure = session.failure or Outcome("exited", str(error))
            raise
        return PASS

    def outcome_of(self, error: BaseException, session: Session) -> Outcome:
        """Return the outcome that an exception of `run` stands for."""
        return AssertionCheck(self._job).outcome_of(error, session)

    def _run_suite(self, meter: CpuMeter, task: PlusTask, suite: Suite) -> bool:
        """Compare the answers to one suite's inputs, up to the first that does not pass; say whether all passed."""
        place = 0
        message = pack({"calls": task.entry_point, "apart": suite.apart}) + frame(suite.message)
        while place < len(suite):
            meter.send(message)
            body = meter.receive(limit_s=suite.limits_s[place], what=_CallsFrom(task, suite, place))
            answers = split(body)
            if not 0 < len(answers) <= len(suite) - place:
                raise ChannelError("another number of answers than of inputs")
            unequal = [
                number
                for number, (kind, data) in enumerate(answers)
                if kind == OTHER or not suite.matches(place + number, data)
            ]
            for number, answer in zip(unequal, _rewritten(meter, unequal), strict=True):
                if not self._passes(meter.session, Call(task, suite, place + number), answer):
                    return False
            place += len(answers)
            message = _MORE
        return True

    def _passes(self, session: Session, call: Call, answer: Any) -> bool:
        """Say whether an answer passes; if not, `_detail` names the difference.

        Raises:
            Exception: The program's own, where it raised one.
        """
        task, suite = call.task, call.suite
        if task.task_id.startswith("Mbpp/") and task.entry_point in ANY_OBJECT and _has_no_form(answer):
            value: Any = object()
        else:
            value = session.value(answer)
        expected, tolerance = suite.expected(call.place), suite.tolerance(call.place)
        if tolerance != 0 and "numpy" not in sys.modules:
            import_numpy(self._numpy_folder)
        subclass = isinstance(answer, dict) and bool(answer.get("subclass"))
        args = suite.args(call.place)
        if agrees(task.task_id, task.entry_point, args, value, expected, tolerance, subclass=subclass):
            return True
        added = "added input: " if suite.name == "plus" else ""
        self._detail = f"{added}{call} gave {short_repr(value)}, expected {short_repr(expected)}"
        return False


class Call:
    """One call of the program's function, for comparing and for people."""

    def __init__(self, task: PlusTask, suite: Suite, place: int) -> None:
        self.task, self.suite, self.place = task, suite, place

    def __str__(self) -> str:
        args = ", ".join(short_repr(value) for value in self.suite.args(self.place))
        return f"{self.task.entry_point}({args})"


class _CallsFrom(Call):
    """A call, or a later one of the same frame: the host learns which one took time only when the frame arrives."""

    def __str__(self) -> str:
        return f"a call from {super().__str__()} on"


def _rewritten(meter: CpuMeter, places: list[int]) -> list[Any]:
    """Return the answers at these places of the last frame, in the form that `Session.value` takes."""
    if not places:
        return []
    meter.send(pack({"again": places}))
    message = meter.message(meter.receive(limit_s=_REWRITE_S, what="sending its answers"))
    answers = message.get("ok") if isinstance(message, dict) else None
    if not isinstance(answers, list) or len(answers) != len(places):
        meter.session.value(message if isinstance(message, dict) and "error" in message else None)
        raise AssertionError("unreachable: a message that is neither a value nor an error fails the session")
    return answers


def _has_no_form(answer: Any) -> bool:
    error = answer.get("error") if isinstance(answer, dict) else None
    return isinstance(error, list) and error[:1] == ["UnsupportedValueError"]
