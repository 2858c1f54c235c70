"""Run tasks on a Ray cluster. One actor is one engine; Ray restarts a dead actor and retries its task.

The driver determines the tasks, gives the next one to whichever actor is free, and writes the manifest. Only shard
entries pass through Ray: an actor reads the same corpus and writes into the same folder as any other worker, so the
folder must have the same path on every node. Ray holds no state of the tasks: a lost cluster costs the current tasks.

NOT covered: an engine over several nodes. All GPUs of an actor are on one node.
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
from teacher_dump.run.callbacks import Callbacks
from teacher_dump.run.cluster_watchdog import cluster_watchdog
from teacher_dump.run.job import DumpJob, prepare_job
from teacher_dump.run.signals import StopSignals
from teacher_dump.run.task_runner import run_task
from teacher_dump.tasks.task import Task

RETRIES = 5
"""Restarts of one actor, and retries of one task, before the dump fails."""
CONNECT_S = 10.0
OBJECT_STORE_BYTES = 128 << 20
"""Object store of a cluster that `--ray local` starts: entries are small."""


class RayWorker:
    """One engine in a process of its own, the body of a Ray actor.

    Args:
        config: The settings.
        folder: Working directory of the driver: paths in the settings are relative to it.
    """

    def __init__(self, config: DumpConfig, folder: str) -> None:
        os.chdir(folder)
        self._job = prepare_job(config)
        self._tasks = {task.name: task for task in self._job.tasks}
        self._engine = start_engine(self._job.engine, self._job.to_engine_config())

    def pid(self) -> int:
        """Return the id of the process that runs the engine."""
        return os.getpid()

    def run(self, name: str) -> dict[str, Any]:
        """Run a task, and return its entry as JSON. A crashed engine ends this process."""
        task = self._tasks[name]
        entry = self._job.entry(task)
        if entry is None:
            try:
                with engine_errors(self._job.engine):
                    entry = run_task(task, self._engine, job=self._job, callbacks=Callbacks())
            except DeadEngineError as error:
                print(error, flush=True)  # to the actor's log; Ray restarts the actor and retries the call
                os._exit(1)
        return entry.to_dict()


def run_on_ray(job: DumpJob, tasks: Sequence[Task], callbacks: Callbacks, stop_signals: StopSignals) -> int:
    """Run tasks on a Ray cluster, and return their number.

    Raises:
        DumpError: Ray is not installed, or the cluster cannot be used.
        DeadEngineError: Restarts of an engine did not help.
    """
    try:
        import ray
    except ImportError:
        raise DumpError("--ray: Ray is not installed; pip install 'teacherless[ray]'") from None
    config = job.config
    with _cluster(ray, config):
        gpus_per_engine = config.tensor_parallel_size * config.pipeline_parallel_size
        resources = ray.cluster_resources()  # type: ignore[no-untyped-call]  # Ray annotates only part of its API
        cluster_gpus = int(resources.get("GPU", 0))
        if config.ray_workers is None and 0 < cluster_gpus < gpus_per_engine:
            raise DumpError(
                f"--ray: found {cluster_gpus} GPUs on the cluster, expected {gpus_per_engine} for one engine"
            )
        if cluster_gpus and job.dtype.requested == "auto" and job.dtype.dtype != "bfloat16":
            raise DumpError("--dtype auto: found GPUs on the cluster, but none here; give --dtype bfloat16")
        num_actors = min(config.ray_workers or max(1, cluster_gpus // gpus_per_engine), len(tasks))
        actor_class = ray.remote(num_cpus=1, num_gpus=gpus_per_engine if cluster_gpus else 0)(RayWorker)
        actor_class = actor_class.options(max_restarts=RETRIES, max_task_retries=RETRIES)
        callbacks.on_load_begin(f"{job.engine} on {num_actors} Ray actors, {job.dtype}")
        actors: list[Any] = [actor_class.remote(config, os.getcwd()) for _ in range(num_actors)]
        try:
            return _distribute(ray, actors, tasks, callbacks, stop_signals)
        finally:
            for actor in actors:
                ray.kill(actor)


def check_address(address: str) -> None:
    """Check that host:port accepts connections. Ray itself retries for minutes and ignores Ctrl-C meanwhile.

    Raises:
        DumpError: It does not.
    """
    host, _, port = address.rpartition(":")
    if host and "/" not in host and port.isdecimal():
        try:
            socket.create_connection((host, int(port)), timeout=CONNECT_S).close()
        except OSError as error:
            raise _unusable_address(address, error.strerror or str(error)) from None


def _distribute(
    ray: Any, actors: Sequence[Any], tasks: Sequence[Task], callbacks: Callbacks, stop_signals: StopSignals
) -> int:
    """Give each free actor the next task until all are finished, and return their number."""
    from ray.exceptions import RayActorError, RayTaskError

    num_tokens = {task.name: task.num_tokens for task in tasks}
    queue = list(reversed(tasks))
    running = {actor.run.remote(queue.pop().name): actor for actor in actors}
    num_finished = 0
    while running:
        ready, _ = ray.wait(list(running), timeout=1.0)  # the time limit lets signal handlers run
        for result in ready:
            actor = running.pop(result)
            try:
                entry = ShardEntry.from_dict(ray.get(result))
            except RayActorError as error:
                lines = [line.strip() for line in str(error).splitlines() if line.strip()]
                raise DeadEngineError(
                    f"--ray: an engine ended, and {RETRIES} restarts failed ({lines[-1]}); finished tasks are kept: "
                    "run the same command again"
                ) from error
            except RayTaskError as error:
                cause = error.as_instanceof_cause()  # type: ignore[no-untyped-call]  # as above
                raise cause from None
            if num_finished == 0:
                callbacks.on_load_end()
            num_finished += 1
            callbacks.on_tokens(num_tokens[entry.name])
            callbacks.on_task_end(entry)
            if queue and stop_signals.first is None:
                running[actor.run.remote(queue.pop().name)] = actor
    return num_finished


@contextlib.contextmanager
def _cluster(ray: Any, config: DumpConfig) -> Iterator[None]:
    """Connect to a cluster, or start one on this machine that ends with this process."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    logging.getLogger("ray").setLevel(logging.ERROR)
    address = str(config.ray)
    local_options: dict[str, Any] = {}
    check_address(address)
    if address == "local":
        processors = max(os.cpu_count() or 1, config.ray_workers or 1)
        local_options = {"num_cpus": processors, "include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
    try:
        ray.init(address=address, log_to_driver=False, configure_logging=False, logging_level="ERROR", **local_options)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise _unusable_address(address, first_line(error)) from None
    with cluster_watchdog() if address == "local" else contextlib.nullcontext():
        try:
            yield
        finally:
            ray.shutdown()
            remove_leftovers(config.out)  # of actors on this machine, which were killed


def _unusable_address(address: str, reason: str) -> DumpError:
    return DumpError(f"--ray {address}: {reason}; expected the address of a running cluster, or local")
