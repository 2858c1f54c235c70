"""The untrusted side of the sandbox: the process that holds one program."""
