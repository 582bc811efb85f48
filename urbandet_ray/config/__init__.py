"""Run configs: one YAML, one typed object."""

from urbandet_ray.config.loading import load_config
from urbandet_ray.config.runs import EvalConfig, InferConfig, ModelConfig, VideoConfig
from urbandet_ray.config.training import TrainConfig

__all__ = ["EvalConfig", "InferConfig", "ModelConfig", "TrainConfig", "VideoConfig", "load_config"]
