"""Is there room for a run's actors or workers on a cluster, or can its autoscaler make it?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from urbandet_ray.launch.needs import Need
from urbandet_ray.launch.verdicts import Check, fail, ok, warn

_SHOWN = ("CPU", "GPU", "TPU")


@dataclass(frozen=True)
class NodeKind:
    """Nodes of one shape.

    Attributes:
        name: the autoscaler's, or what they have.
        resources: of each node.
        up: how many are there.
        most: how many there can be, those included.
    """

    name: str
    resources: Mapping[str, float]
    up: int
    most: int

    def to_text(self) -> str:
        """What it is, for a message."""
        more = "" if self.most == self.up else f" (up to {self.most})"
        return f"{self.up}{more} x {self.name} [{describe(self.resources)}]"


def describe(resources: Mapping[str, float]) -> str:
    """Resources in words: "8 CPU, 1 GPU"."""
    shown = [f"{resources[name]:g} {name}" for name in _SHOWN if resources.get(name)]
    return ", ".join(shown) or "no CPU or GPU"


def check_room(need: Need, kinds: Sequence[NodeKind], *, can_grow_unseen: bool) -> Check:
    """Whether `need.least` of them can ever run; other jobs are not looked at.

    Args:
        can_grow_unseen: an autoscaler is there whose node types cannot be read.
    """
    now = sum(need.room(kind.resources) * kind.up for kind in kinds)
    ever = sum(need.room(kind.resources) * kind.most for kind in kinds)
    each = f"each {need.what} needs {describe(need.fills or need.bundle)}"
    there = "; ".join(kind.to_text() for kind in kinds) or "no nodes"
    wanted = f"{need.least} {need.what}{'' if need.least == 1 else 's'}"
    if ever < need.least and can_grow_unseen:
        return warn(
            "resources",
            f"{each}, room is for {now} of {wanted} now ({there}). Whether the autoscaler has "
            "nodes for them cannot be seen from here: `urbandet scale` asks it",
        )
    if ever < need.least:
        told = "none fits" if ever == 0 else f"there is room for {ever} of {wanted}"
        return fail(
            "resources",
            f"{each}, and {told}: the cluster has {there}. Ask for less, or give it such nodes",
        )
    if ever < need.most:
        return warn("resources", f"{each}; room for {ever} of the {need.most} asked for ({there})")
    if now < need.least:
        return ok("resources", f"{each}; room for {now} now, the autoscaler brings more ({there})")
    return ok("resources", f"{each}; room for {now} now ({there})")
