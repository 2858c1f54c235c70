"""Generate answers: prompts in, text out, with vLLM or transformers."""
