"""Ranks of a run as forks of one process: what torchrun starts, with torch imported once for all of them.

Start it as `python -m tests.student_train.forked SETTINGS.json RANKS STOP_AT STOP_IN`; `train_in_ranks` does.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

from student_train.config import Config, from_dict
from student_train.errors import Interrupted
from tests.student_train.toy import environment


def train_in_ranks(world: Any, config: Config, *, ranks: int = 2, stop_at: int = 0, stop_in: str = "take_step") -> str:
    """Run in so many processes to the end, or to a signal that one of them gets; return what was said.

    Args:
        world: Cache and environment.
        config: Settings of the run.
        ranks: Number of processes.
        stop_at: Step of the signal; 0 for none.
        stop_in: Function of the training loop that the signal precedes: `take_step`, or `score_run` for an evaluation.
    """
    settings = Path(config.out).with_suffix(".json")
    settings.write_text(json.dumps(config.to_dict()))
    command = [sys.executable, "-m", "tests.student_train.forked", str(settings), str(ranks), str(stop_at), stop_in]
    done = subprocess.run(command, env=environment(world), capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _train(config: Config, *, rank: int, ranks: int, port: int, stop_at: int, stop_in: str) -> int:
    """Be one rank; return the exit status, 0 also for a run that a signal stopped."""
    from student_train.training import loop, trainer

    real, step_name = getattr(loop, stop_in), {"take_step": "number", "score_run": "step"}[stop_in]

    def stopped(*args: Any, **named: Any) -> Any:
        if named[step_name] == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(*args, **named)

    if stop_at and rank == 0:
        setattr(loop, stop_in, stopped)

    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks}
    os.environ.update({name: str(value) for name, value in place.items()})
    try:
        trainer.run(config, command=[], log=print)
    except Interrupted as error:
        print(error)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def main() -> None:
    config, stop_in = from_dict(json.loads(Path(sys.argv[1]).read_text())), sys.argv[4]
    ranks, stop_at = map(int, sys.argv[2:4])
    import transformers.models.llama.modeling_llama  # noqa: F401 (before the forks)

    from student_train.evaluation import completions
    from student_train.training import trainer  # noqa: F401 (before the forks)

    completions.complete.__kwdefaults__["max_new_tokens"] = 2
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    alive = set()
    for rank in range(ranks):
        if (process := os.fork()) == 0:
            status = _train(config, rank=rank, ranks=ranks, port=port, stop_at=stop_at, stop_in=stop_in)
            sys.stdout.flush()
            os._exit(status)
        alive.add(process)
    failed = False
    while alive:
        process, status = os.wait()
        alive.discard(process)
        failed |= status != 0
        for other in alive if failed else ():  # they would wait for it
            os.kill(other, signal.SIGKILL)
    sys.exit(failed)


if __name__ == "__main__":
    main()
