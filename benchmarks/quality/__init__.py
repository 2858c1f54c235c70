"""Which record teaches best? The experiment behind docs/results/distillation_quality.md.

The teacher runs once and leaves its last hidden states, one projection away from its full distributions
(`teacher.py`). Each method keeps something of them, at a price in bytes (`records.py`), and a student learns from
that (`student.py`). `report.py` turns the runs into a table and a picture. Nothing here imports what is not the
product's own, but for the dense loss that the others are measured against.
"""
