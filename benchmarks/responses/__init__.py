"""Distillation on responses: a teacher writes and records answers, students learn from them, benchmarks score both."""
