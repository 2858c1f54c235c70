"""Values that options accept."""

from __future__ import annotations

OBJECTIVES = ("kd", "sft")
"""Learn from records, or from text alone."""
DIVERGENCES = ("forward-kl", "bucket-forward-kl", "bucket-reverse-kl", "bucket-skew-kl", "bucket-js", "rs-kd", "top-k")
"""Divergences between teacher and student; see `losses/divergences.py`."""
ACROSS = ("alm", "cells", "matched", "uld")
"""Losses of a student with another tokenizer; all but `alm` compare distributions. See `cross_tokenizer/terms.py`."""
TEMPLATES = ("stored", "own")
"""Whose chat template renders the context of a response: the teacher's, as stored, or the student's."""
BALANCES = ("norms", "fixed")
"""Rules that weigh the parts of such a loss; see `losses/weighting.py`."""
SCHEDULES = ("cosine", "wsd")
"""Learning-rate schedules."""
LAYER_CHOICES = ("kl", "importance", "even")
"""Rules that choose the layers to keep."""
EXPORT_DTYPES = ("float32", "bfloat16")
"""Types of exported weights."""
QUANTIZATIONS = ("int8", "int4")
"""Types of weights of a quantised copy; see `model/quantization.py`."""
