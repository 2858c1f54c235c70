"""Run work on the actors of a Ray cluster. One actor is one engine; Ray restarts a dead actor and retries its call.

The driver gives the next piece of work to whichever actor is free. Ray holds no state of the work: a lost cluster costs
the current pieces.

NOT covered: an engine over several nodes. All GPUs of an actor are on one node.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from shards.errors import first_line
from shards.runtime.machine import DtypeChoice
from shards.storage.temp_files import remove_leftovers
from teacher_dump.config import DumpConfig
from teacher_dump.errors import DeadEngineError, DumpError
from teacher_dump.run.cluster_watchdog import cluster_watchdog
from teacher_dump.run.signals import StopSignals

RETRIES = 5
"""Restarts of one actor, and retries of one call, before the dump fails."""
CONNECT_S = 10.0
OBJECT_STORE_BYTES = 128 << 20
"""Object store of a cluster that `--ray local` starts: results are small."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ActorBody:
    """What an actor runs: a class whose method `run` takes one piece of work."""

    kind: type
    arguments: tuple[Any, ...]
    """Of its constructor."""


def run_on_actors(
    config: DumpConfig,
    dtype: DtypeChoice,
    body: ActorBody,
    work: Sequence[Any],
    *,
    on_start: Callable[[int], None],
    on_result: Callable[[Any], None],
    stop_signals: StopSignals,
) -> None:
    """Run pieces of work on a Ray cluster, until all are done or a signal is received.

    Args:
        config: Settings of the dump: the cluster, the number of actors and the GPUs of each.
        dtype: The dtype, which must not depend on this machine where the cluster has GPUs.
        body: What each actor runs.
        work: Arguments of `run`, one call each.
        on_start: Receives the number of actors before they start.
        on_result: Receives the result of each call, in the order in which they finish.
        stop_signals: After a signal, no further call is made.

    Raises:
        DumpError: Ray is not installed, or the cluster cannot be used.
        DeadEngineError: Restarts of an engine did not help.
    """
    try:
        import ray
    except ImportError:
        raise DumpError("--ray: Ray is not installed; pip install 'teacherless[ray]'") from None
    with _cluster(ray, config):
        gpus_per_engine = config.tensor_parallel_size * config.pipeline_parallel_size
        resources = ray.cluster_resources()  # type: ignore[no-untyped-call]  # Ray annotates only part of its API
        cluster_gpus = int(resources.get("GPU", 0))
        if config.ray_workers is None and 0 < cluster_gpus < gpus_per_engine:
            raise DumpError(
                f"--ray: found {cluster_gpus} GPUs on the cluster, expected {gpus_per_engine} for one engine"
            )
        if cluster_gpus and dtype.requested == "auto" and dtype.dtype != "bfloat16":
            raise DumpError("--dtype auto: found GPUs on the cluster, but none here; give --dtype bfloat16")
        num_actors = min(config.ray_workers or max(1, cluster_gpus // gpus_per_engine), len(work))
        actor_class: Any = ray.remote(num_cpus=1, num_gpus=gpus_per_engine if cluster_gpus else 0)(body.kind)
        actor_class = actor_class.options(max_restarts=RETRIES, max_task_retries=RETRIES)
        on_start(num_actors)
        actors: list[Any] = [actor_class.remote(*body.arguments) for _ in range(num_actors)]
        try:
            _distribute(ray, actors, work, on_result, stop_signals)
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
    ray: Any, actors: Sequence[Any], work: Sequence[Any], on_result: Callable[[Any], None], stop_signals: StopSignals
) -> None:
    """Give each free actor the next piece of work until all are done."""
    from ray.exceptions import RayActorError, RayTaskError

    queue = list(reversed(work))
    running = {actor.run.remote(queue.pop()): actor for actor in actors}
    while running:
        ready, _ = ray.wait(list(running), timeout=1.0)  # the time limit lets signal handlers run
        for result in ready:
            actor = running.pop(result)
            try:
                value = ray.get(result)
            except RayActorError as error:
                lines = [line.strip() for line in str(error).splitlines() if line.strip()]
                raise DeadEngineError(
                    f"--ray: an engine ended, and {RETRIES} restarts failed ({lines[-1]}); finished tasks are kept: "
                    "run the same command again"
                ) from error
            except RayTaskError as error:
                cause = error.as_instanceof_cause()  # type: ignore[no-untyped-call]  # as above
                raise cause from None
            on_result(value)
            if queue and stop_signals.first is None:
                running[actor.run.remote(queue.pop())] = actor


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
