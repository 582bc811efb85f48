"""How good detections are: COCO metrics overall, per class and by size, and COCO's file formats."""

from urbandet_ray.evaluation.coco import coco_results, coco_truth
from urbandet_ray.evaluation.metrics import ClassMetrics, Metrics, SizeMetrics
from urbandet_ray.evaluation.scoring import evaluate

__all__ = [
    "ClassMetrics",
    "Metrics",
    "SizeMetrics",
    "coco_results",
    "coco_truth",
    "evaluate",
]
