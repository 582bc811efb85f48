"""Which records a step trains on: a pure function of seed, worker and step, so that a resumed run
goes on with the very batch it would have had."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from urbandet_ray.errors import InputError

COMPANIONS = 3
_ORDER, _COMPANY, _DRAWS = 0, 1, 2


def repeat_factors(class_presence: NDArray[np.bool_], threshold: float) -> NDArray[np.float64]:
    """How often each frame is shown an epoch so that rare classes are seen more.

    LVIS's repeat factor sampling (Gupta et al. 2019, arXiv 1908.03195, appendix B.2): with f_c the
    share of frames that have class c, r_c = max(1, sqrt(threshold / f_c)), and a frame's factor
    is the largest of its classes'.

    Args:
        class_presence: [n, classes] which classes a frame has.
        threshold: classes in a smaller share of the frames are repeated; 0 repeats none.

    Returns:
        [n] at least 1.
    """
    shares = class_presence.mean(axis=0) if len(class_presence) else np.ones(0)
    factors = np.sqrt(threshold / np.maximum(shares, 1e-12)).clip(min=1.0)
    repeated: NDArray[np.float64] = np.where(class_presence, factors, 1.0).max(axis=1, initial=1.0)
    return repeated


class Sampler:
    """An endless row of epochs, each a permutation of the records, cut into batches.

    Epochs follow one another without a gap: a batch may end one and begin the next.
    """

    def __init__(
        self,
        n: int,
        batch_size: int,
        seed: int,
        rank: int,
        repeat: NDArray[np.float64] | None = None,
    ) -> None:
        """Remember what the order depends on.

        Args:
            n: records of this worker.
            batch_size: images of a step.
            seed: of the run.
            rank: the worker; each has an order of its own.
            repeat: [n] at least 1, how often a record comes an epoch (repeat_factors); the
                fractional part is rounded at random, anew each epoch.

        Raises:
            InputError: there is no record.
        """
        if n < 1:
            raise InputError(
                f"worker {rank} has no record to train on: use fewer workers, or more records"
            )
        if repeat is not None and (repeat.shape != (n,) or not (repeat >= 1).all()):
            raise ValueError(f"repeat has shape {repeat.shape}, expected ({n},) of at least 1")
        self.n = n
        self.batch_size = batch_size
        self._seed = (seed, rank)
        self._repeat = repeat
        self._ends = [0]
        self._orders: dict[int, NDArray[np.int64]] = {}

    def ids(self, step: int) -> NDArray[np.int64]:
        """The records of a step, [batch_size], numbers in [0, n)."""
        begin = step * self.batch_size
        return np.array(
            [self._at(place) for place in range(begin, begin + self.batch_size)], np.int64
        )

    def companions(self, step: int) -> NDArray[np.int64]:
        """Three other records for each image of a step, [batch_size, 3], for mosaic and mixup.

        With a single record they are that record.
        """
        own = self.ids(step)[:, None]
        if self.n == 1:
            return np.repeat(own, COMPANIONS, axis=1)
        draw = np.random.default_rng([*self._seed, _COMPANY, step])
        others = draw.integers(self.n - 1, size=(self.batch_size, COMPANIONS))
        return others + (others >= own)

    def draw_seed(self, step: int) -> int:
        """A seed for what else is drawn from a step on, in [0, 2**31)."""
        sequence = np.random.SeedSequence([*self._seed, _DRAWS, step])
        return int(sequence.generate_state(1)[0]) >> 1

    def epoch(self, step: int) -> float:
        """Epochs that are done when the step begins."""
        epoch, place = self._locate(step * self.batch_size)
        return epoch + place / len(self._order(epoch))

    def _at(self, place: int) -> int:
        epoch, within = self._locate(place)
        return int(self._order(epoch)[within])

    def _locate(self, place: int) -> tuple[int, int]:
        """Epoch, and the place within it."""
        if self._repeat is None:
            return divmod(place, self.n)
        while self._ends[-1] <= place:
            self._ends.append(self._ends[-1] + int(self._times(len(self._ends) - 1).sum()))
        epoch = int(np.searchsorted(self._ends, place, side="right")) - 1
        return epoch, place - self._ends[epoch]

    def _times(self, epoch: int) -> NDArray[np.int64]:
        """How often each record comes in an epoch."""
        if self._repeat is None:
            return np.ones(self.n, np.int64)
        chance = np.random.default_rng([*self._seed, _ORDER, epoch]).random(self.n)
        whole = np.floor(self._repeat)
        times: NDArray[np.int64] = (whole + (chance < self._repeat - whole)).astype(np.int64)
        return times

    def _order(self, epoch: int) -> NDArray[np.int64]:
        if epoch not in self._orders:
            draw = np.random.default_rng([*self._seed, _ORDER, epoch])
            draw.random(self.n)  # what _times draws: the order must not depend on it
            records = np.repeat(np.arange(self.n), self._times(epoch))
            held = self._orders.get(epoch - 1)
            self._orders = {} if held is None else {epoch - 1: held}
            self._orders[epoch] = draw.permutation(records)
        return self._orders[epoch]
