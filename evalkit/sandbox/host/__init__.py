"""The trusted side of the sandbox: the process that holds the tests and checks answers."""
