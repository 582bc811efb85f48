"""Run configs: one YAML, one typed object."""

from urbandet_ray.config.inference_config import (
    EvalConfig,
    InferConfig,
    ModelConfig,
    NmsConfig,
    TilesConfig,
    TrackConfig,
    VideoConfig,
)
from urbandet_ray.config.loading import load_config
from urbandet_ray.config.sections import RayConfig, StorageConfig
from urbandet_ray.config.training_config import TrainConfig

__all__ = [
    "EvalConfig",
    "InferConfig",
    "ModelConfig",
    "NmsConfig",
    "RayConfig",
    "StorageConfig",
    "TilesConfig",
    "TrackConfig",
    "TrainConfig",
    "VideoConfig",
    "load_config",
]
