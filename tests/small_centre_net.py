"""docs/examples/centre_net.py with an input so small that a whole training costs seconds."""

import centre_net

from urbandet_ray.training.model import TrainableModel


def build(num_classes: int) -> TrainableModel:
    """What `urbandet train` calls, in each worker."""
    return centre_net.CentreNet(num_classes, (96, 160))
