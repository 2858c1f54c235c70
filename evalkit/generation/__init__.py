"""The generate stage for checkpoints: prompts, engines, decoding rules and checks of the weights."""
