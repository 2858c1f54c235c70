"""Tests of the weights of the parts of a loss."""

from __future__ import annotations

import pytest

from student_train.losses import weighting


def test_weights_are_inverse_to_norms_and_sum_to_one() -> None:
    parts = ("ce", "alm", "cells")
    found = weighting.part_weights(parts, balance="norms", ce_weight=0.3, norms={"ce": 1.0, "alm": 0.5, "cells": 4.0})
    assert found == pytest.approx({"ce": 1 / 3.25, "alm": 2 / 3.25, "cells": 0.25 / 3.25})
    fixed = {"ce": 0.3, "alm": 0.35, "cells": 0.35}
    assert weighting.part_weights(parts, balance="norms", ce_weight=0.3, norms={"ce": 1.0}) == pytest.approx(fixed)
    assert weighting.part_weights(parts, balance="fixed", ce_weight=0.3, norms={"ce": 1.0}) == pytest.approx(fixed)
    assert weighting.part_weights(("ce",), balance="norms", ce_weight=0.3, norms={}) == {"ce": 1.0}
    assert weighting.smooth_norms({"ce": 1.0, "alm": 2.0}, {"ce": 2.0, "alm": 0.0}) == pytest.approx(
        {"ce": 1.1, "alm": 2.0}
    )
