"""The final table: what each step from a base model to a chosen sample adds, on one pair of models."""
