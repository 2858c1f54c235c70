"""Names that options accept."""

from __future__ import annotations

BALANCES = ("norms", "fixed")


OBJECTIVES = ("kd", "sft")


DIVERGENCES = ("forward-kl", "bucket-forward-kl", "bucket-reverse-kl", "bucket-skew-kl", "bucket-js", "rs-kd", "top-k")


ACROSS = ("alm", "cells", "matched", "uld")


SCHEDULES = ("cosine", "wsd")
