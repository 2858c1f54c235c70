"""How do the tasks run on a Ray cluster? One actor is one engine; Ray restarts it and gives it the task again.

The driver finds the tasks, hands the next one to whichever actor is free, and writes the manifest. Nothing but entries
goes through Ray: an actor reads the same corpus and writes its shard into the same folder as any other worker, so that
folder must be visible, under the same path, on every node. No task state is kept in Ray: a cluster that is lost costs
the tasks in hand.

NOT covered: an engine over several nodes. An actor's GPUs are all on one node.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Iterator, Sequence
from typing import Any

from shards.errors import first_line
from shards.format.manifest import ShardEntry
from shards.storage.temp_files import remove_leftovers
from teacher_dump.config import DumpConfig
from teacher_dump.engines.errors import engine_errors
from teacher_dump.engines.registry import start_engine
from teacher_dump.errors import DeadEngineError, DumpError
from teacher_dump.run.dump import Watcher, run_task
from teacher_dump.run.job import Job, prepare
from teacher_dump.run.signals import Stop
from teacher_dump.tasks.task import Task

RETRIES = 5
"""Deaths of one actor, and tries of one task, after which something else is wrong than bad luck."""
CONNECT_S = 10.0
OBJECT_STORE_BYTES = 128 << 20
"""Of a cluster that `--ray local` starts: entries are small."""


class Worker:
    """One engine, in a process of its own. Lives as a Ray actor."""

    def __init__(self, config: DumpConfig, folder: str) -> None:
        os.chdir(folder)  # paths in the settings are as the driver sees them, and so is the cache's identity
        self._job = prepare(config)
        self._tasks = {task.name: task for task in self._job.work}
        self._engine = start_engine(self._job.engine, self._job.taught())

    def pid(self) -> int:
        """Return the process that runs the engine."""
        return os.getpid()

    def do(self, name: str) -> dict[str, Any]:
        """Do a task, and return its entry as JSON. A dead engine takes this process with it."""
        task = self._tasks[name]
        entry = self._job.entry(task)
        if entry is None:
            try:
                with engine_errors(self._job.engine):
                    entry = run_task(task, self._engine, job=self._job, watcher=Watcher())
            except DeadEngineError as error:
                print(error, flush=True)  # into the worker's log; Ray starts another and repeats the call
                os._exit(1)
        return entry.to_dict()


def run_on_ray(job: Job, tasks: Sequence[Task], watcher: Watcher, stop: Stop) -> int:
    """Do tasks on a Ray cluster, and return how many. Raises DumpError where Ray cannot be had or does not help."""
    try:
        import ray
    except ImportError:
        raise DumpError("--ray: Ray is not installed; pip install 'teacherless[ray]'") from None
    config = job.config
    with _cluster(ray, config):
        gpus = config.tensor_parallel_size * config.pipeline_parallel_size
        there = int(ray.cluster_resources().get("GPU", 0))
        if config.ray_workers is None and 0 < there < gpus:
            raise DumpError(f"--ray: found {there} GPUs on the cluster, expected {gpus} for one engine")
        if there and job.dtype.asked == "auto" and job.dtype.dtype != "bfloat16":
            raise DumpError("--dtype auto: found GPUs on the cluster, but none here; give --dtype bfloat16")
        number = min(config.ray_workers or max(1, there // gpus), len(tasks))
        actor = ray.remote(num_cpus=1, num_gpus=gpus if there else 0)(Worker)
        actor = actor.options(max_restarts=RETRIES, max_task_retries=RETRIES)
        watcher.loading(f"{job.engine} on {number} Ray actors, {job.dtype}")
        actors = [actor.remote(config, os.getcwd()) for _ in range(number)]
        try:
            return _hand_out(ray, actors, tasks, watcher, stop)
        finally:
            for one in actors:
                ray.kill(one)


def _hand_out(ray: Any, actors: Sequence[Any], tasks: Sequence[Task], watcher: Watcher, stop: Stop) -> int:
    from ray.exceptions import RayActorError, RayTaskError

    sizes = {task.name: task.num_tokens for task in tasks}
    left = list(reversed(tasks))
    running = {actor.do.remote(left.pop().name): actor for actor in actors}
    number = 0
    while running:
        ready, _ = ray.wait(list(running), timeout=1.0)  # wakes up now and then, for signals
        for answer in ready:
            actor = running.pop(answer)
            try:
                entry = ShardEntry.from_dict(ray.get(answer))
            except RayActorError as error:
                said = [line.strip() for line in str(error).splitlines() if line.strip()]
                raise DeadEngineError(
                    f"--ray: an engine ended, and {RETRIES} restarts did not help or could not ({said[-1]}); finished "
                    "tasks are kept: run the same command again"
                ) from error
            except RayTaskError as error:
                raise error.as_instanceof_cause() from None
            if number == 0:
                watcher.loaded()
            number += 1
            watcher.captured(sizes[entry.name])
            watcher.finished(entry)
            if left and stop.signal is None:
                running[actor.do.remote(left.pop().name)] = actor
    return number


@contextlib.contextmanager
def _cluster(ray: Any, config: DumpConfig) -> Iterator[None]:
    """Connect to a cluster, or start one on this machine that ends with this process."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    logging.getLogger("ray").setLevel(logging.ERROR)
    address = str(config.ray)
    here: dict[str, Any] = {}
    reach(address)
    if address == "local":
        processors = max(os.cpu_count() or 1, config.ray_workers or 1)
        here = {"num_cpus": processors, "include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
    try:
        ray.init(address=address, log_to_driver=False, configure_logging=False, logging_level="ERROR", **here)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise DumpError(
            f"--ray {address}: {first_line(error)}; expected the address of a running cluster, or local"
        ) from None
    try:
        yield
    finally:
        ray.shutdown()
        remove_leftovers(config.out)  # of actors on this machine, which ended without a word


def reach(address: str) -> None:
    """Raise DumpError where nobody listens at host:port. Ray itself would try for minutes, deaf to Ctrl-C."""
    host, _, port = address.rpartition(":")
    if host and "/" not in host and port.isdecimal():
        try:
            socket.create_connection((host, int(port)), timeout=CONNECT_S).close()
        except OSError as error:
            raise DumpError(
                f"--ray {address}: {error.strerror or error}; expected the address of a running cluster, or local"
            ) from None
