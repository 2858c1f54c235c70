"""Does it pass? Untrusted programs, trusted tests, and a wall between them.

Four kinds of process, one pair of pipes at each joint:

    evalkit (main)   holds models and results; starts judges; `pool.py`
      judge          trusted; holds tests and expected values; runs the check; `judge.py`, `zygote_client.py`
        zygote       confined; knows no test; forks a warm interpreter per program; `zygote.py`, `confine.py`
          solution   untrusted; holds one program; answers calls with plain values; `child.py`, `values.py`

The verdict is made in the judge, from plain values. The program under test never shares an interpreter with
a test, so there is no verdict in its reach to forge.
"""
