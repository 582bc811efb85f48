"""What all run configs share: how a section behaves, and the sections for S3 and Ray."""

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from urbandet_ray.config.mistakes import mistakes_text
from urbandet_ray.errors import ConfigError

Share = Annotated[float, Field(ge=0, le=1)]
OpenShare = Annotated[float, Field(gt=0, le=1)]
Positive = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]


class Section(BaseModel):
    """A part of a config: fixed once made, and every key is known.

    Raises:
        ConfigError: made in Python with values that cannot be used.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )

    if not TYPE_CHECKING:  # a type checker knows the fields from pydantic

        def __init__(self, /, **values: Any) -> None:
            try:
                super().__init__(**values)
            except ValidationError as error:
                raise ConfigError(
                    mistakes_text(type(self), error, f"this {type(self).__name__}")
                ) from None

        # as BaseModel's own: a section within another is validated with it, its keys' places kept
        __init__.__pydantic_base_init__ = True


class StorageConfig(Section):
    """How s3:// is reached; credentials come from AWS's default chain."""

    region: str | None = None
    """AWS region; None takes it from the environment or profile."""
    endpoint_url: str | None = None
    """Another S3 server, http://host:port; None is AWS, or AWS_ENDPOINT_URL where set."""
    anonymous: bool = False
    """Read public buckets without credentials."""
    requester_pays: bool = False
    """Pay for reading buckets whose readers pay (Requester Pays); S3 refuses them without."""


class RayConfig(Section):
    """Which Ray runs it."""

    address: str | None = None
    """`auto` or host:port of a cluster; None is RAY_ADDRESS where set, else a Ray of its own."""
    num_cpus: Positive | None = None
    """Cores of the Ray it starts itself; None is all."""
    object_store_mb: Annotated[int, Field(ge=80)] | None = None
    """Object store of the Ray it starts itself: encoded shards on their way, nothing else. None is
    64 MB a core, at least 256: actors that find no room for their shards stay idle."""
