"""Distillation across tokenizers: alignment, targets and the fused loss."""
