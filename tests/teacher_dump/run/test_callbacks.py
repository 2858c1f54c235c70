"""Tests of callbacks: a group passes every event to each member, in order."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from teacher_dump.run.callbacks import CallbackGroup, Callbacks

EVENTS = [name for name, _ in inspect.getmembers(Callbacks, inspect.isfunction) if name.startswith("on_")]


@pytest.mark.parametrize("event", EVENTS)
def test_a_group_passes_each_event_to_all_members_in_order(event: str) -> None:
    calls: list[tuple[Any, ...]] = []

    def member(name: str) -> Callbacks:
        callbacks = Callbacks()
        setattr(callbacks, event, lambda *arguments: calls.append((name, *arguments)))
        return callbacks

    arguments = tuple(range(len(inspect.signature(getattr(Callbacks(), event)).parameters)))
    getattr(CallbackGroup(member("first"), member("second")), event)(*arguments)
    assert calls == [("first", *arguments), ("second", *arguments)]
