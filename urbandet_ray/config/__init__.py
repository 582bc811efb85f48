"""Run configs: one YAML, one typed object."""

from urbandet_ray.config.loading import load_config
from urbandet_ray.config.runs import EvalConfig, InferConfig, ModelConfig, VideoConfig

__all__ = ["EvalConfig", "InferConfig", "ModelConfig", "VideoConfig", "load_config"]
