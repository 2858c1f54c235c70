"""Ranks of a run as forks of one process: what torchrun starts, with torch imported once for all of them.

Start it as `python -m tests.student_train.forked SETTINGS.json RANKS STOP_AT`; `train_in_ranks` does.
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


def train_in_ranks(world: Any, config: Config, *, ranks: int = 2, stop_at: int = 0) -> str:
    """Run in so many processes to the end, or to a signal that one of them gets at a step; return what was said."""
    settings = Path(config.out).with_suffix(".json")
    settings.write_text(json.dumps(config.to_dict()))
    command = [sys.executable, "-m", "tests.student_train.forked", str(settings), str(ranks), str(stop_at)]
    done = subprocess.run(command, env=environment(world), capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _train(config: Config, *, rank: int, ranks: int, port: int, stop_at: int) -> int:
    """Be one rank; return the exit status, 0 also for a run that a signal stopped."""
    from student_train.training import loop, trainer

    real = loop.take_step

    def stopped_step(*args: Any, number: int, **named: Any) -> Any:
        if number == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(*args, number=number, **named)

    if stop_at and rank == 0:
        loop.take_step = stopped_step

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
    config, (ranks, stop_at) = from_dict(json.loads(Path(sys.argv[1]).read_text())), map(int, sys.argv[2:])
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
            status = _train(config, rank=rank, ranks=ranks, port=port, stop_at=stop_at)
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
