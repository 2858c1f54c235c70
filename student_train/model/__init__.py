"""The student model: loading, tokenizer match, output head, adapters, compilation."""
