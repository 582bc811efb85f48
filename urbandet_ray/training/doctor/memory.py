"""Does a batch fit: a rough estimate of what training takes, against what the machine has."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator

from urbandet_ray.training.doctor.case import Case
from urbandet_ray.training.doctor.extractors import registry
from urbandet_ray.training.doctor.findings import Finding

GIB_PER_MEGAPIXEL = (
    ("efficientnet-b0", 4.0),
    ("efficientnet-b1", 5.0),
    ("efficientnet-b2", 6.0),
    ("efficientnet-b3", 9.0),
    ("efficientnet", 16.0),
    ("inception_resnet", 9.0),
    ("hourglass", 12.0),
    ("resnet152", 7.0),
    ("resnet101", 5.5),
    ("mobilenet", 2.5),
    ("resnet", 4.0),
)
"""GiB of float32 activations, gradients and work space for a megapixel of input, by part of the
extractor's name, first match. Rough, within a factor of two: order of magnitude of what the OD
API's models take on a GPU; kernels, cuDNN work space and XLA move it."""

_FIXED_GIB = 1.5
_USABLE = 0.9


def needed_gib(extractor: str, batch: int, size_wh: tuple[int, int]) -> float:
    """Rough GiB a worker takes to train a batch of images of a size in pixels."""
    rate = next((gib for part, gib in GIB_PER_MEGAPIXEL if part in extractor), 4.0)
    return _FIXED_GIB + batch * rate * size_wh[0] * size_wh[1] / 1e6


def available_gib() -> tuple[float, str]:
    """GiB of the smallest GPU, or of main memory where there is none, and its name."""
    try:
        told = subprocess.run(
            ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        ).stdout.split()
        return min(float(one) for one in told) / 1024, "GPU memory"
    except (OSError, ValueError, subprocess.SubprocessError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, "main memory"


def check_memory(case: Case, memory: tuple[float, str] | None = None) -> Iterator[Finding]:
    """A batch too large for the memory of one worker.

    Args:
        memory: GiB of one worker and their name; None asks the machine.
    """
    size, batch = case.input_size_wh(), int(case.config.train_config.batch_size)
    if size is None or case.extractor not in registry(case.kind):
        return
    gib, name = memory or available_gib()
    needed = needed_gib(case.extractor, batch, size)
    if needed <= _USABLE * gib:
        return
    each = needed_gib(case.extractor, 1, size) - _FIXED_GIB
    fits = max(1, int((_USABLE * gib - _FIXED_GIB) / each))
    fits = 1 << (fits.bit_length() - 1)
    place = "train_config.batch_size"
    yield case.finding(
        "warning",
        "batch-too-large",
        place,
        f"a batch of {batch} at {size[0]} x {size[1]} takes some {needed:.0f} GiB a worker (rough "
        f"estimate for {case.extractor}), this machine has {gib:.0f} GiB of {name}",
        f"batch_size: {fits}, and the learning rate in proportion; or more workers",
    )
