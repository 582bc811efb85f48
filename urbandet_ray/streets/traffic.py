"""Who moves through a street: every actor's place is a closed formula of time.

Nothing is simulated step by step, so any frame can be made alone and motion is smooth by
construction. Lanes are endless queues: their members are drawn from the seed by number.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from urbandet_ray.streets.layout import Block, Layout

VEHICLE, PEDESTRIAN, CYCLIST = 1, 2, 4
"""Ids of urbandet_ray.labels.STREET_LABELS."""

AHEAD_M = 150.0
"""Actors beyond this distance are smaller than any box that is kept."""

_KINDS = ("car", "van", "bus", "truck")


@dataclass(frozen=True)
class EgoMotion:
    """How the camera car drives: a speed that breathes, a lane kept with gentle drift."""

    speed: float
    surge: float
    lane_x: float
    drift_m: float
    phase: float

    def z(self, t: float) -> float:
        """Metres along the street at time t seconds."""
        return self.speed * t + self.surge * float(np.sin(0.5 * t + self.phase))

    def x(self, t: float) -> float:
        """Metres right of the centre line."""
        return self.lane_x + self.drift_m * float(np.sin(0.42 * t + 2 * self.phase))

    def yaw(self, t: float) -> float:
        """Heading in radians, positive to the right."""
        return self.drift_m * 0.06 * float(np.cos(0.42 * t + 2 * self.phase))

    def pitch(self, t: float) -> float:
        """Nodding of the body, radians."""
        return 0.0022 * float(np.sin(3.1 * t + self.phase)) + 0.0015 * float(np.sin(7.3 * t))


@dataclass(frozen=True)
class Path:
    """Where an actor is: at (x0, z0) at time 0, moving on with constant speed plus a sway.

    `follow` 1 adds the ego's way along the street, for those who keep its pace.
    """

    x0: float
    z0: float
    vx: float = 0.0
    vz: float = 0.0
    follow: float = 0.0
    sway_x: float = 0.0
    sway_z: float = 0.0
    phase: float = 0.0

    def at(self, t: float, ego_z: float) -> tuple[float, float]:
        """x and z in metres."""
        wave = float(np.sin(0.6 * t + self.phase))
        x = self.x0 + self.vx * t + self.sway_x * wave
        return x, self.z0 + self.vz * t + self.follow * ego_z + self.sway_z * wave


@dataclass(frozen=True)
class Actor:
    """One road user.

    Attributes:
        key: stays the same through the drive.
        kind: car, van, bus, truck, pedestrian or cyclist.
        class_id: id of STREET_LABELS.
        heading: radians from straight ahead, positive to the right.
        pace: metres a second over ground; what legs and pedals follow.
        look: seed of shape and colours.
    """

    key: int
    kind: str
    class_id: int
    path: Path
    heading: float
    pace: float
    look: int


@dataclass(frozen=True)
class Queue:
    """One lane: actor number j rides at spacing * (j + jitter), from the drive's seed."""

    seed: int
    number: int
    x: float
    spacing: float
    speed: float
    heading: float
    follow: float
    first: int
    kinds: tuple[float, float, float, float, float]
    """Shares of car, van, bus, truck and cyclist."""
    full: float

    def members(self, t: float, ego_z: float) -> Iterator[Actor]:
        """Those within sight at time t."""
        return self.between(t, ego_z, ego_z - 12, ego_z + AHEAD_M)

    def between(self, t: float, ego_z: float, low_z: float, high_z: float) -> Iterator[Actor]:
        """Those who may be between two places at time t."""
        start = self.speed * t + self.follow * ego_z
        low = int(np.floor((low_z - start) / self.spacing)) - 1
        high = int(np.ceil((high_z - start) / self.spacing)) + 1
        for j in range(max(low, self.first), high):
            actor = _queue_member(self, j)
            if actor is not None:
                yield actor

    def member(self, j: int) -> Actor | None:
        """Actor number j, None where the lane has a gap."""
        rng = np.random.default_rng([self.seed, 71, self.number, j + 10_000])
        if rng.random() > self.full:
            return None
        z0 = (j + rng.uniform(-0.22, 0.22)) * self.spacing
        path = Path(
            self.x + rng.uniform(-0.2, 0.2), z0, 0.0, self.speed, self.follow,
            0.08, min(0.03 * self.spacing, 0.8), rng.uniform(0, 6),
        )  # fmt: skip
        kind = str(rng.choice([*_KINDS, "cyclist"], p=self.kinds))
        pace = 4.5 if kind == "cyclist" else abs(self.speed) + 6.0
        key = (self.number + 1) * 1_000_000 + j
        class_id = CYCLIST if kind == "cyclist" else VEHICLE
        return Actor(key, kind, class_id, path, self.heading, pace, int(rng.integers(1 << 30)))


@lru_cache(maxsize=4096)
def _queue_member(queue: Queue, j: int) -> Actor | None:
    return queue.member(j)


@dataclass(frozen=True)
class Traffic:
    """Everybody of a drive."""

    seed: int
    layout: Layout
    ego: EgoMotion

    def actors(self, t: float) -> list[Actor]:
        """Everybody within sight at time t, parked, standing and moving."""
        ego_z = self.ego.z(t)
        found = [actor for queue in self.queues for actor in queue.members(t, ego_z)]
        for block in self.layout.blocks(ego_z - 15, ego_z + AHEAD_M):
            found += self._settled(block)
        near = []
        for actor in found:
            z = actor.path.at(t, ego_z)[1] - ego_z
            if -12 < z < AHEAD_M:
                near.append(actor)
        return near

    @cached_property
    def queues(self) -> tuple[Queue, ...]:
        """The moving lanes: ours, those beside it, the oncoming ones, bicycles on both sides."""
        rng = np.random.default_rng([self.seed, 5])
        lay, lane = self.layout, self.layout.lane_m
        motor = (0.74, 0.13, 0.06, 0.07, 0.0)
        bikes = (0.0, 0.0, 0.0, 0.0, 1.0)
        queues = []
        for number in range(lay.lanes):
            own = abs((number + 0.5) * lane - self.ego.lane_x) < 0.5
            speed = 0.0 if own else rng.uniform(-1.8, 1.5)
            space = rng.uniform(22, 38) if own else rng.uniform(18, 34)
            queues.append(
                Queue(self.seed, number, (number + 0.5) * lane, space, speed, 0.0, 1.0,
                      1 if own else -4, motor, 0.8)
            )  # fmt: skip
            queues.append(
                Queue(self.seed, 10 + number, -(number + 0.5) * lane, rng.uniform(17, 42),
                      -rng.uniform(5, 11), np.pi, 0.0, -10_000, motor, 0.75)
            )  # fmt: skip
        edge = lay.lanes * lane + (0.6 if lay.bike_m else -0.5)
        queues.append(
            Queue(self.seed, 20, edge, rng.uniform(45, 90), rng.uniform(-2.2, 0.4), 0.0,
                  1.0, 1 if rng.random() < 0.6 else 0, bikes, 0.6)
        )  # fmt: skip
        queues.append(
            Queue(self.seed, 21, -edge, rng.uniform(60, 120), -rng.uniform(3.5, 6), np.pi, 0.0,
                  -10_000, bikes, 0.5)
        )  # fmt: skip
        return tuple(queues)

    def _settled(self, block: Block) -> list[Actor]:
        cache = self._blocks
        if block.number not in cache:
            cache[block.number] = self._settle(block)
        return cache[block.number]

    @cached_property
    def _blocks(self) -> dict[int, list[Actor]]:
        return {}

    def _settle(self, block: Block) -> list[Actor]:
        rng = np.random.default_rng([self.seed, 9, block.number + 1000])
        found = [*self._parked(block, rng), *self._walkers(block, rng), *self._crossing(block, rng)]
        base = 100_000_000 + (block.number + 1000) * 1000
        return [
            Actor(
                base + k, a.kind, a.class_id, a.path, a.heading, a.pace, int(rng.integers(1 << 30))
            )
            for k, a in enumerate(found)
        ]

    def _parked(self, block: Block, rng: np.random.Generator) -> Iterator[Actor]:
        lay = self.layout
        if not lay.park_m:
            return
        for side in (-1, 1):
            z = block.start + 9 + rng.uniform(0, 4)
            while z < block.corner - 9:
                if rng.random() < lay.parked_share:
                    kind = str(rng.choice(_KINDS, p=[0.83, 0.13, 0.0, 0.04]))
                    room = 9.5 if kind == "truck" else 6.4
                    if z + room < block.corner - 6:
                        heading = (0.0 if side > 0 else np.pi) + rng.normal(0, 0.012)
                        x = side * (lay.kerb_x - 1.08 + rng.uniform(-0.12, 0.1))
                        yield Actor(0, kind, VEHICLE, Path(x, z + room / 2), heading, 0.0, 0)
                    z += room + rng.uniform(-0.3, 0.8)
                else:
                    z += 6.2

    def _walkers(self, block: Block, rng: np.random.Generator) -> Iterator[Actor]:
        lay = self.layout
        for _ in range(int(rng.poisson(lay.walkers))):
            side = float(rng.choice([-1, 1]))
            x = side * (lay.kerb_x + rng.uniform(0.6, lay.pavement_m - 0.5))
            z = rng.uniform(block.start, block.end)
            pace = 0.0 if rng.random() < 0.2 else rng.uniform(0.9, 1.7)
            way = float(rng.choice([-1, 1]))
            heading = (0.0 if way > 0 else np.pi) if pace else rng.uniform(0, 6.28)
            for _ in range(1 + int(rng.random() < 0.25)):
                path = Path(x, z, 0.0, way * pace, 0.0, 0.1, 0.0, rng.uniform(0, 6))
                yield Actor(0, "pedestrian", PEDESTRIAN, path, heading, pace, 0)
                x, z = x - side * 0.75, z + rng.uniform(-0.3, 0.3)

    def _crossing(self, block: Block, rng: np.random.Generator) -> Iterator[Actor]:
        """People on the crossing, and side traffic: waiting, or passing where nobody is near."""
        lay, middle = self.layout, (block.corner + block.end) / 2
        for _ in range(int(rng.integers(1, 5))):
            way, pace = float(rng.choice([-1, 1])), rng.uniform(1.1, 1.7)
            z = block.corner - rng.uniform(0.8, 2.6)
            start = self._free_time(rng, z, 2.5, 2 * lay.kerb_x / pace)
            if start is not None:
                path = Path(-way * lay.kerb_x - way * pace * start, z, way * pace)
                yield Actor(0, "pedestrian", PEDESTRIAN, path, way * np.pi / 2, pace, 0)
        for way in (-1.0, 1.0):
            z = middle - way * lay.side_half / 2
            speed, kind = rng.uniform(6, 9), str(rng.choice(_KINDS, p=[0.8, 0.12, 0.03, 0.05]))
            start = self._free_time(rng, z, 8.0, (2 * lay.kerb_x + 12) / speed)
            if start is not None and rng.random() < 0.8:
                path = Path(-way * (lay.kerb_x + 6) - way * speed * start, z, way * speed)
                yield Actor(0, kind, VEHICLE, path, way * np.pi / 2, speed, 0)
            elif rng.random() < 0.7:
                path = Path(-way * (lay.kerb_x + rng.uniform(4.5, 6.5)), z)
                yield Actor(0, kind, VEHICLE, path, way * np.pi / 2, 0.0, 0)
            if rng.random() < 0.12:
                path = Path(-way * (lay.kerb_x + rng.uniform(1.5, 3)), z - way * 2.2)
                yield Actor(0, "cyclist", CYCLIST, path, way * np.pi / 2, 0.0, 0)

    def _free_time(
        self, rng: np.random.Generator, z: float, room: float, needed_s: float
    ) -> float | None:
        """A time at which a strip across the street stays free while the ego comes near it."""
        arrival = max(z, 0.0) / max(self.ego.speed, 0.5)
        for _ in range(12):
            start = arrival - rng.uniform(1.2, 12) - needed_s
            times = np.arange(start - 0.3, start + needed_s + 0.3, 0.3)
            if self.ego.z(float(times[-1])) + 9 < z and not any(
                self._occupied(float(t), z, room) for t in times
            ):
                return float(start)
        return None

    def _occupied(self, t: float, z: float, room: float) -> bool:
        ego_z = self.ego.z(t)
        return any(
            abs(actor.path.at(t, ego_z)[1] - z) < room + 3
            for queue in self.queues
            for actor in queue.between(t, ego_z, z - 12, z + 12)
        )
