"""The sandbox: untrusted programs, trusted tests, and separate processes for both.

Four kinds of process, with one pair of pipes or sockets at each joint:

    evalkit (main)   holds models and results; starts checkers; `pool.py`, `checker_client.py`, `execute.py`,
                     `interpreter.py`
      checker        trusted; holds tests and expected values; runs the check; `host/`
        zygote       confined; knows no test; forks a warm interpreter per program; `guest/zygote.py`
          guest      untrusted; holds one program; answers calls with plain values; `guest/serve.py`

The checker makes the verdict from plain values. The program under test shares no interpreter with a test, except in
the few tasks whose tests pass objects (`CheckJob.inline`), and their verdicts are flagged.

A session of the interpreter is a guest that stays alive between requests. Sessions have checkers of their own, and many
guests of one zygote.
"""
