"""The untrusted side of the sandbox: processes that run generated programs."""
