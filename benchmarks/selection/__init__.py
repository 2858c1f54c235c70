"""Methods that choose among samples, compared on two models and two benchmarks."""
