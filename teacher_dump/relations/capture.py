"""Take the query, key and value vectors of one layer during the teacher's forward pass, and project them.

The projection of a relation head of width w to d < w numbers is the first d columns of a random orthogonal matrix
(Haar, by QR of a Gaussian one), times sqrt(w / d). So E[P P'] is the identity over seeds: an inner product of projected
vectors has the true one as its expectation, with less variance than a Gaussian matrix has. For d = w, P only rotates:
inner products are kept, and outliers are spread over the codes. Each kind and head has a matrix of its own.

Shapes: B rows, T tokens, P positions, A relation heads, W numbers of all heads, w and d of one head before and after.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from shards.format.chunk import RowInfo
from shards.format.relations import KINDS, RelationLayout, has_relations
from shards.model_files.attention import attention_maps
from teacher_dump.errors import DumpError
from teacher_dump.relations.settings import RelationRequest


class RelationRecorder:
    """Records the vectors of one layer of a model."""

    def __init__(self, model: Any, request: RelationRequest, *, name: Path) -> None:
        """Find the layer, and check its vectors with a forward pass of one token.

        Args:
            model: A transformers model in evaluation mode, on its device.
            request: What is recorded.
            name: Name of the model in error messages.

        Raises:
            DumpError: The layer does not compute queries, keys and values of these sizes by one map each.
        """
        self._layout, self._share = request.layout, request.share
        self._outputs: dict[str, torch.Tensor] = {}
        device = next(model.parameters()).device
        self._projections = [matrices.to(device, torch.float32) for matrices in projections(request.layout)]
        maps = attention_maps(_layer(model, request.layout.layer))
        if maps is None:
            raise DumpError(
                f"{name}: found no q_proj, k_proj and v_proj in layer {request.layout.layer} of a "
                f"{type(model).__name__}, expected one map each to queries, keys and values; leave --relations out"
            )
        self._maps = dict(zip(KINDS, maps, strict=True))
        with torch.inference_mode(), self.recording():
            model(input_ids=torch.zeros(1, 1, dtype=torch.int64, device=device))
        for kind, width in zip(KINDS, request.layout.widths, strict=True):
            shape = tuple(self._outputs[kind].shape) if kind in self._outputs else None
            if shape != (1, 1, width * request.layout.heads):
                raise DumpError(
                    f"{name}: found {kind} of shape {shape} for one token, expected (1, 1, "
                    f"{width * request.layout.heads}) as its config says; leave --relations out"
                )

    def covers(self, info: RowInfo) -> bool:
        """Return whether a row gets relations."""
        return has_relations(info.document, share=self._share)

    @contextlib.contextmanager
    def recording(self) -> Iterator[None]:
        """Keep the vectors of the forward passes inside the context; the last one counts."""
        self._outputs = {}

        def keep(kind: str) -> Any:
            return lambda module, inputs, output: self._outputs.__setitem__(kind, output)

        handles = [module.register_forward_hook(keep(kind)) for kind, module in self._maps.items()]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def vectors(self, row: int, start: int, stop: int) -> torch.Tensor:
        """Return the projected vectors of some places of a row, float32 [P, C], in the order of the format."""
        parts = []
        for kind, matrices_Awd in zip(KINDS, self._projections, strict=True):
            states_PAw = self._outputs[kind][row, start:stop].float().unflatten(1, (self._layout.heads, -1))
            parts.append(torch.einsum("paw,awd->pad", states_PAw, matrices_Awd).flatten(1))
        return torch.cat(parts, 1)


def projections(layout: RelationLayout) -> list[torch.Tensor]:
    """Return the matrices of queries, keys and values, each float64 [A, w, d]. They depend on the layout alone."""
    matrices = []
    for kind, (width, stored) in enumerate(zip(layout.widths, layout.stored_widths, strict=True)):
        heads = [_projection(width, stored, key=(layout.seed, kind, head)) for head in range(layout.heads)]
        matrices.append(torch.stack(heads))
    return matrices


def _projection(width: int, stored: int, *, key: tuple[int, int, int]) -> torch.Tensor:
    """Return a matrix [width, stored] with orthogonal columns of length sqrt(width / stored)."""
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))
    orthogonal, triangle = np.linalg.qr(rng.standard_normal((width, stored)))
    # QR is unique up to signs; these make the matrix uniformly distributed (Mezzadri 2007).
    signs = np.where(np.diagonal(triangle) < 0, -1.0, 1.0)
    return torch.from_numpy(orthogonal * signs * np.sqrt(width / stored))


def _layer(model: Any, number: int) -> Any:
    count = model.config.get_text_config().num_hidden_layers
    lists = [m for m in model.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == count]
    # A multimodal model has a list for images, too; the text part's maps have the sizes of its config.
    return next((m[number] for m in lists if attention_maps(m[number]) is not None), torch.nn.Module())
