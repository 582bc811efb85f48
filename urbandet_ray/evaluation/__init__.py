"""How good detections are: COCO metrics overall, per class and by size, and COCO's results file."""

from urbandet_ray.evaluation.coco import coco_results
from urbandet_ray.evaluation.metrics import ClassMetrics, Metrics, SizeMetrics
from urbandet_ray.evaluation.scoring import evaluate

__all__ = [
    "ClassMetrics",
    "Metrics",
    "SizeMetrics",
    "coco_results",
    "evaluate",
]
