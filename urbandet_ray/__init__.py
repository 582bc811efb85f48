"""urbandet_ray: detect objects on urban drives, from TFRecords to mAP and video, through Ray.

    import urbandet_ray as urbandet

    run = urbandet.infer("s3://bucket/test", "runs/test", model={"uri": "shipped"})
    print(urbandet.evaluate(run.run, "s3://bucket/test").to_text())
    urbandet.make_video(run.run, "drive.mp4", fps=10)

Keyword arguments are keys of run configs (config/inference_config.py, config/training_config.py).
Importing the package loads none of the heavy libraries; the first call does.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from urbandet_ray.version import __version__

if TYPE_CHECKING:
    from urbandet_ray.api import evaluate, export, infer, make_video, track, train

__all__ = ["__version__", "evaluate", "export", "infer", "make_video", "track", "train"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("urbandet_ray.api"), name)
