"""`urbandet preflight`: everything that can be known to fail, before a job is started."""

from __future__ import annotations

import os
import platform
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from urbandet_ray.config import RayConfig, StorageConfig, TrainConfig
from urbandet_ray.config.sizing import Nodes
from urbandet_ray.errors import ConfigError, MissingExtraError, RunError, UrbandetError
from urbandet_ray.inference.session import ray_session, store_mb
from urbandet_ray.launch.buckets import minimal_policy
from urbandet_ray.launch.needs import (
    Need,
    gpus_compute,
    local_places,
    object_store_bytes,
    places_of,
    processes_of,
    remote_places,
    wants_gpus,
)
from urbandet_ray.launch.node_checks import (
    check_answers,
    check_buckets,
    check_disks,
    check_gpus,
    check_local,
    check_object_stores,
    check_sent,
)
from urbandet_ray.launch.nodes import (
    NodeFacts,
    look_everywhere,
    look_here,
    node_kinds,
    node_resources,
)
from urbandet_ray.launch.order import (
    INSTALL_TIMEOUT_S,
    Order,
    RunConfig,
    check_secrets,
    check_working_dir,
)
from urbandet_ray.launch.room import NodeKind, check_room
from urbandet_ray.launch.verdicts import Check, Preflight, fail, joined, ok, warn
from urbandet_ray.launch.versions import check_packages, check_python, check_ray
from urbandet_ray.storage import Storage, is_remote

if TYPE_CHECKING:
    from urbandet_ray.launch.jobs import Jobs

EXIT_FAILED = 3
"""Exit code where a check failed, as that of `urbandet doctor`."""

TIMEOUT_S = 300
"""How long the checks may take on a cluster; TensorFlow's start is in it."""


def preflight_here(order: Order, address: str | None = None) -> Preflight:
    """All checks from where this runs: on the cluster at `address`, or for a Ray of its own.

    Args:
        address: `auto` or host:port; None looks at this machine alone.
    """
    config, checks = _read(order)
    if config is None:
        return Preflight(tuple(checks))
    checks.append(check_python(platform.python_version()))
    lock = order.working_dir / "requirements" / "core.lock"
    checks.append(check_packages(lock, training=isinstance(config, TrainConfig)))
    checks += check_local(local_places(config))
    nodes, need, room = _look(config, address)
    from_s3 = check_buckets(nodes)
    checks += from_s3
    policy = None
    if any(node.buckets is not None and node.buckets.denied for node in nodes):
        policy = minimal_policy(remote_places(config))
    readable = not any(one.verdict == "fail" for one in checks)
    if isinstance(config, TrainConfig):
        checks += _ask_doctor(config) if readable else [_unasked()]
    checks += [*check_answers(nodes), *room]
    checks += _check_nodes(config, nodes, need, readable=readable)
    return Preflight(tuple(checks), policy)


def preflight_there(order: Order, jobs: Jobs) -> Preflight:
    """What can be seen from here, then a short job that makes the other checks on the cluster."""
    config, checks = _read(order)
    try:
        check_working_dir(order)
    except ConfigError as error:
        checks.append(fail("working directory", str(error)))
    checks.append(check_ray(jobs.ray_version))
    if config is not None:
        checks += check_sent(local_places(config), order.working_dir)
    mine = Preflight(tuple(checks))
    if config is None or _nothing_may_be_sent(mine):
        return mine
    command = [order.python, "-m", "urbandet_ray.cli", "preflight", order.kind, *order.settings]
    command += ["--address", "auto", "--json"]
    timeout_s = TIMEOUT_S + (INSTALL_TIMEOUT_S if order.install else 0)
    try:
        answer = jobs.ask(order, shlex.join(command), name="preflight", timeout_s=timeout_s)
        theirs = Preflight.of(answer)
    except (UrbandetError, KeyError, TypeError) as error:
        told = f"the checks did not run there: {error}"
        return joined([mine, Preflight((fail("cluster", told),))])
    rest = tuple(one for one in theirs.checks if one.name != "config")
    return joined([mine, Preflight(rest, theirs.policy)])


def _nothing_may_be_sent(report: Preflight) -> bool:
    """Not even the checks: they travel as the job would."""
    bad = {one.name for one in report.checks if one.verdict == "fail"}
    return bool(bad & {"ray", "secrets", "working directory"})


def _read(order: Order) -> tuple[RunConfig | None, list[Check]]:
    """The run config, and whether it may be sent."""
    checks: list[Check] = []
    config: RunConfig | None = None
    try:
        config = order.config()
        checks.append(ok("config", f"{order.run_config or 'the settings'} for {order.kind}"))
    except ConfigError as error:
        checks.append(fail("config", str(error)))
    try:
        check_secrets(order, config, os.environ)
    except ConfigError as error:
        checks.append(fail("secrets", str(error)))
    return config, checks


def _look(
    config: RunConfig, address: str | None
) -> tuple[list[NodeFacts], Need | None, list[Check]]:
    """Facts of the nodes, what the run would ask them for, and whether they have room."""
    places, options = remote_places(config), _options(config)
    more = {
        "gpus": wants_gpus(config),
        "tensorflow": gpus_compute(config),
        "folder": _cache(config),
    }
    if address is not None:
        with ray_session(RayConfig(address=address)):
            nodes = look_everywhere(places, options, **more)
            kinds, unseen = node_kinds()
            need, room = _room(config, node_resources(), kinds, can_grow_unseen=unseen)
        return nodes, need, room
    own: RayConfig | None = getattr(config, "ray", None)
    store = store_mb(own) if own is not None else 0
    here = look_here(own.num_cpus if own is not None else None, store, places, options, **more)
    kinds = [NodeKind("this machine", here.resources, 1, 1)]
    need, room = _room(config, [here.resources], kinds, can_grow_unseen=False)
    return [here], need, room


def _room(
    config: RunConfig, nodes: Nodes, kinds: Sequence[NodeKind], *, can_grow_unseen: bool
) -> tuple[Need | None, list[Check]]:
    """What the run would ask of these nodes, and whether there is, or will be, room for it."""
    try:
        need = processes_of(config, nodes)
    except RunError as error:
        return None, [fail("resources", str(error))]
    if need is None:
        return None, []
    return need, [check_room(need, kinds, can_grow_unseen=can_grow_unseen)]


def _options(config: RunConfig) -> StorageConfig:
    return config.storage


def _cache(config: RunConfig) -> str:
    """Where records are kept on each node; "" where none are."""
    if not isinstance(config, TrainConfig):
        return ""
    return config.cache or "~/.cache"


def _check_nodes(
    config: RunConfig, nodes: list[NodeFacts], need: Need | None, *, readable: bool
) -> list[Check]:
    size_bytes = _data_bytes(config) if readable else 0
    checks = check_disks(nodes, size_bytes, "the records' copy")
    checks += check_object_stores(nodes, need, object_store_bytes(config))
    if wants_gpus(config):
        checks += check_gpus(nodes, tensorflow=gpus_compute(config))
    return checks


def _data_bytes(config: RunConfig) -> int:
    """Records that are copied to every node: those of a training, where they are on S3."""
    storage = Storage(config.storage)
    return sum(
        info.size_bytes
        for place in places_of(config)
        if place.data and is_remote(place.uri)
        for info in storage.list_files(place.uri)
    )


def _ask_doctor(config: TrainConfig) -> list[Check]:
    """The doctor's findings, as the run itself will get them."""
    from urbandet_ray.training.doctor.planned_run import examine_plan
    from urbandet_ray.training.planning import plan_run

    storage: Storage = Storage(config.storage)
    try:
        findings = examine_plan(plan_run(config, storage))
    except MissingExtraError as error:
        return [fail("doctor", f"training cannot start there: {error}")]
    except UrbandetError as error:
        return [fail("plan", str(error))]
    bad = fail if config.doctor == "refuse" else warn
    checks = [
        bad("doctor", f"{one.place}: {one.what} -> {one.fix}")
        for one in findings
        if one.severity == "error"
    ]
    warnings = sum(one.severity == "warning" for one in findings)
    told = f"{warnings} warnings, which `urbandet doctor` explains" if warnings else "nothing found"
    return checks or [(warn if warnings else ok)("doctor", told)]


def _unasked() -> Check:
    return warn("doctor", "not asked yet: mend what failed above first")
