"""The experiment behind docs/results/distillation_quality.md: student quality by kind of record.

The teacher runs once and its last hidden states are stored; one projection gives its full distributions (`teacher.py`).
Each method stores a part of these distributions in a number of bytes (`records.py`), and a student learns from it
(`student.py`). `report.py` writes the table and the figure. All code under test is the product's own; only the dense
loss, the reference of all others, is written here.
"""
