"""Write responses to prompts with a model, before a teacher records them."""
