"""Run configs: one YAML, one typed object."""

from urbandet_ray.config.inference_config import (
    ActorConfig,
    DrawConfig,
    EvalConfig,
    InferConfig,
    ModelConfig,
    NmsConfig,
    SampleConfig,
    ShardConfig,
    TilesConfig,
    TrackConfig,
    VideoConfig,
)
from urbandet_ray.config.loading import load_config
from urbandet_ray.config.sections import RayConfig, StorageConfig
from urbandet_ray.config.training_config import TrainConfig, WorkersConfig

__all__ = [
    "ActorConfig",
    "DrawConfig",
    "EvalConfig",
    "InferConfig",
    "ModelConfig",
    "NmsConfig",
    "RayConfig",
    "SampleConfig",
    "ShardConfig",
    "StorageConfig",
    "TilesConfig",
    "TrackConfig",
    "TrainConfig",
    "VideoConfig",
    "WorkersConfig",
    "load_config",
]
