"""Tools for small models: refinement beside several samples, on two models and two benchmarks."""
