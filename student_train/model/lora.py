"""Train low-rank adapters beside frozen matrices, and merge them before export.

LoRA (Hu et al. 2022), by peft: a linear layer gets the product of two thin matrices added. Only these train, and only
these are in checkpoints; the exported folder is an ordinary model. The output projection has no adapter. Nor has a
matrix that several layers share, since merging would add the adapters of all of them.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import nn

from shards.errors import first_line
from student_train.errors import TrainError
from student_train.model.probe import MODEL_ERRORS, last_hidden, probing, random_ids


def add_adapters(model: Any, *, rank: int, seed: int) -> Any:
    """Freeze a model and add adapters to it, in place.

    Args:
        model: transformers causal language model.
        rank: Rank of the adapters.
        seed: Seed of their initial values.

    Returns:
        The adapted model, for `merge_adapters`.

    Raises:
        TrainError: peft is not installed, or the model does not run with adapters.
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError:
        raise TrainError(
            "lora-rank: found no peft, expected it for adapters; pip install 'teacherless[lora]', or use --lora-rank 0"
        ) from None
    torch.manual_seed(seed)
    settings = LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        lora_dropout=0.0,
        target_modules="all-linear",
        exclude_modules=_without_adapter(model) or None,
        task_type="CAUSAL_LM",
    )
    try:
        adapted = get_peft_model(model, settings)
        with probing(model):
            last_hidden(model, random_ids(model, 1, 4))
    except MODEL_ERRORS as error:
        raise TrainError(
            f"lora-rank: a {type(model).__name__} does not take adapters ({first_line(error)}), expected linear "
            "layers; use --lora-rank 0"
        ) from None
    return adapted


def merge_adapters(adapted: Any) -> Any:
    """Return the ordinary model with its adapters added to its matrices. The adapters are removed."""
    return adapted.merge_and_unload()


def _without_adapter(model: Any) -> list[str]:
    """Return the names of linear layers that get no adapter.

    These share their matrix with another layer, compute more than a product (routers of experts), or are read by
    Mamba's kernels without a call.
    """
    modules = dict(model.named_modules())
    more = _more_than_a_product(model)
    uses = Counter(id(m.weight) for m in modules.values() if isinstance(m, nn.Linear))
    names = []
    for name, module in modules.items():
        if not isinstance(module, nn.Linear):
            continue
        parent, _, own = name.rpartition(".")
        read_by_kernel = own == "out_proj" and hasattr(modules[parent], "conv1d")
        if uses[id(module.weight)] > 1 or id(module) in more or read_by_kernel:
            names.append(name)
    return names


def _more_than_a_product(model: Any) -> set[int]:
    """Return the ids of linear modules of other classes that compute more than the product, or were not called."""
    own = [m for m in model.modules() if isinstance(m, nn.Linear) and type(m).forward is not nn.Linear.forward]
    more = {id(m) for m in own}

    def compare(module: nn.Linear, args: tuple[Any, ...], output: Any) -> None:
        expected = nn.functional.linear(args[0], module.weight, module.bias)
        if isinstance(output, torch.Tensor) and output.shape == expected.shape and torch.allclose(output, expected):
            more.discard(id(module))

    if not own:
        return more
    hooks = [m.register_forward_hook(compare) for m in own]
    with probing(model):
        last_hidden(model, random_ids(model, 1, 4))
    for hook in hooks:
        hook.remove()
    return more
