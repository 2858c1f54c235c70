"""Tests of the measures of layers, beside slow ones that follow their definitions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import shards
from student_train.data.hashing import HeldOutRule
from student_train.pruning.influence import block_influence, removal_kl
from student_train.pruning.layer_choice import by_influence, choose_by_influence

MEASURES = pytest.mark.parametrize("measure", [block_influence, removal_kl])


def slow_influence(model: Any, rows: list[np.ndarray]) -> list[float]:
    """Return block influence by its definition, token by token, from the hidden states that the model returns."""
    per_layer: list[list[float]] = [[] for _ in range(model.config.num_hidden_layers)]
    for row in rows:
        ids = torch.from_numpy(row)[None]
        # The last entry of `hidden_states` is normalised, so the last layer's output is computed without the norm.
        norm, model.model.norm = model.model.norm, torch.nn.Identity()
        with torch.no_grad():
            states = model(ids, output_hidden_states=True).hidden_states
        model.model.norm = norm
        for i in range(len(per_layer)):
            for t in range(ids.shape[1]):
                a, b = states[i][0, t].double().numpy(), states[i + 1][0, t].double().numpy()
                norms = np.sqrt((a @ a) * (b @ b))
                # The embedding of padding is zero: the cosine with it counts as 0.
                per_layer[i].append(1.0 - (float(a @ b / norms) if norms else 0.0))
    return [sum(values) / len(values) for values in per_layer]


def slow_removal_kl(model: Any, rows: list[np.ndarray]) -> list[float]:
    """Return the KL of removal by its definition, from models that lack the layer."""
    layers, totals = model.model.layers, []
    for i in range(len(layers)):
        total = 0.0
        for row in rows:
            ids = torch.from_numpy(row)[None]
            with torch.no_grad():
                whole = model(ids, use_cache=False).logits[0].double().log_softmax(-1).numpy()
                model.model.layers = torch.nn.ModuleList([*layers[:i], *layers[i + 1 :]])
                model.config.num_hidden_layers -= 1
                cut = model(ids, use_cache=False).logits[0].double().log_softmax(-1).numpy()
                model.model.layers = layers
                model.config.num_hidden_layers += 1
            total += float((np.exp(whole) * (whole - cut)).sum())
        totals.append(total / sum(map(len, rows)))
    return totals


def test_the_measures_are_those_of_their_definitions(tools: Any) -> None:
    model = tools.llama(vocab=50, layers=5)
    rng = np.random.default_rng(0)
    rows = [rng.integers(0, 50, size=n) for n in (17, 1, 30)]
    assert block_influence(model, rows) == pytest.approx(slow_influence(model, rows), rel=1e-5)
    assert removal_kl(model, rows) == pytest.approx(slow_removal_kl(model, rows), rel=1e-3, abs=1e-6)


@MEASURES
def test_measuring_leaves_the_model_as_it_was(tools: Any, measure: Any) -> None:
    model = tools.llama(vocab=50).train()
    before = {name: p.clone() for name, p in model.named_parameters()}
    first = measure(model, [np.arange(20)])
    assert model.training
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in model.model.layers)
    assert not any("forward" in vars(layer) for layer in model.model.layers)
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert first == measure(model, [np.arange(20)])


@MEASURES
def test_a_layer_that_changes_nothing_has_no_influence_and_is_dropped_first(tools: Any, measure: Any) -> None:
    model = tools.llama(vocab=50, layers=4)
    with torch.no_grad():
        model.model.layers[2].self_attn.o_proj.weight.zero_()
        model.model.layers[2].mlp.down_proj.weight.zero_()
    influence = measure(model, [np.arange(1, 41)])
    assert influence[2] == pytest.approx(0.0, abs=1e-9)
    assert min(influence[0], influence[1], influence[3]) > 1e-8
    assert by_influence(influence, 3, method="kl", tokens=40).kept == (0, 1, 3)


@MEASURES
def test_no_rows_are_refused(tools: Any, measure: Any) -> None:
    with pytest.raises(ValueError, match="no rows"):
        measure(tools.llama(vocab=50), [])


@MEASURES
def test_layers_that_return_tuples_are_measured_alike(tools: Any, measure: Any) -> None:
    model = tools.llama(vocab=50, layers=3)
    plain = measure(model, [np.arange(20)])

    class InTuple(torch.nn.Module):
        def __init__(self, layer: torch.nn.Module) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, hidden: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            return self.layer(hidden, *args, **kwargs), "more"

    class Opened(torch.nn.Module):
        def __init__(self, part: torch.nn.Module) -> None:
            super().__init__()
            self.part = part

        def forward(self, hidden: Any, *args: Any, **kwargs: Any) -> Any:
            return self.part(hidden[0] if isinstance(hidden, tuple) else hidden, *args, **kwargs)

    wrapped = map(InTuple, model.model.layers)
    first, *others = wrapped
    model.model.layers = torch.nn.ModuleList([first, *others])
    model.model.norm = Opened(model.model.norm)
    for layer in others:
        layer.register_forward_pre_hook(lambda _, args: (args[0][0], *args[1:]))
    assert measure(model, [np.arange(20)]) == pytest.approx(plain, rel=1e-6)


def test_a_model_that_cannot_be_measured_keeps_evenly_spaced_layers(
    tools: Any, world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tools.llama(vocab=300, layers=4)
    cache, rule = shards.open(str(world.shards)), HeldOutRule(fraction=0.2)
    monkeypatch.setattr(model.model.layers[1], "forward", lambda *_, **__: torch.zeros(1, 1, 1))
    for method in ("kl", "importance"):
        choice = choose_by_influence(model, 2, method=method, cache=cache, held_out=rule)
        assert (choice.method, choice.kept) == ("even", (0, 3))
        assert "does not map one hidden state to another" in choice.reason
