"""The config of a training run: `urbandet train`, jobs/train.py."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from urbandet_ray.config.sections import Count, Positive, RayConfig, Section, Share, StorageConfig

Rate = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]


class WorkersConfig(Section):
    """Who trains: Ray Train's workers, each with its own share of the records."""

    count: Positive = 1
    """Workers. Several make each step together, as one worker with the images of all would: losses
    are divided by the boxes of all, gradients are added up, then clipped. Two things stay each
    worker's own: batch norm's statistics (unless batch_norm.mode is sync or freezes them) and what
    a mask loss is divided by."""
    min: Positive | None = None
    """Train with as few as this many where the cluster has no room for `count`; None waits for
    `count`."""
    cpus: Positive | None = None
    """Cores a worker; None is the most with which all workers find room on the nodes at once."""
    gpus: Annotated[float, Field(ge=0)] = 0
    """GPUs a worker."""
    max_failures: Annotated[int, Field(ge=-1)] = 3
    """Times that the run is started again from its last checkpoint because a worker was lost; -1 is
    any number."""
    first_here: bool = False
    """The first worker, who writes the run folder, runs on the node that the run was started on:
    for a local run folder that other nodes do not see."""

    @model_validator(mode="after")
    def _min_up_to_count(self) -> Self:
        if self.min is not None and self.min > self.count:
            raise ValueError(
                f"min is {self.min}, above count {self.count}: a training starts with count "
                "workers and goes on with min where some are lost; give a min of at most count"
            )
        return self


class BatchConfig(Section):
    """Images of an optimizer step: per_worker x accumulate x workers."""

    per_worker: Positive | None = None
    """Images a worker computes at a time; None is the pipeline.config's batch_size."""
    accumulate: Positive = 1
    """Batches of a worker that make one step together, as one large batch would, where memory is
    too small for that. Batch norm's statistics stay each batch's own."""


class ScheduleConfig(Section):
    """The learning rate over the run."""

    kind: Literal[
        "cosine", "constant", "step", "exponential", "one_cycle", "restarts", "plateau", "config"
    ] = "cosine"
    """Sized to the run, whatever its length; `config` takes the pipeline.config's to the letter."""
    rate: Rate | None = None
    """Highest rate, as it stands for whatever batch. None is the highest that the pipeline.config
    states, as it stands too; where it states none, or is another optimizer's than optimizer.kind,
    the one that the OD API's tuned configs imply for the optimizer and the images of a step. Each
    run says at its start which rate it takes and from where. Not used by kind `config`."""
    warmup_share: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Share of the run in which the rate rises to its highest; `one_cycle` has its own, 0.3."""
    final_share: Share = 0.01
    """Rate at the end (cosine, exponential, one_cycle, restarts) as a share of the highest."""
    milestones: tuple[Share, ...] = (0.6, 0.85)
    """Where `step` lowers the rate, as shares of the run."""
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """What `step` and `plateau` lower the rate by."""
    cycles: Positive = 3
    """Descents of `restarts`, each twice as long as the one before."""
    patience: Positive = 3
    """Evaluations without a better mAP before `plateau` lowers the rate."""

    @model_validator(mode="after")
    def _milestones_rise(self) -> Self:
        if list(self.milestones) != sorted(self.milestones):
            shown = ", ".join(f"{one:g}" for one in self.milestones)
            raise ValueError(f"milestones are {shown}: they have to rise, as in 0.6, 0.85")
        return self

    @model_validator(mode="after")
    def _end_that_is_reached(self) -> Self:
        if self.kind == "exponential" and not self.final_share:
            raise ValueError("final_share is 0, which an exponential never reaches: 0.01 is usual")
        return self


class OptimizerConfig(Section):
    """How gradients change the weights."""

    kind: Literal["config", "momentum", "adam", "adamw", "rmsprop"] = "config"
    """`config` takes the pipeline.config's kind and hyperparameters."""
    momentum: Share = 0.9
    """Of momentum and rmsprop."""
    nesterov: bool = False
    """Nesterov's momentum; of momentum alone."""
    weight_decay: NotNegative = 0.0
    """Decoupled decay of kernels, beside the model's own regularizer; with adamw 0 is 0.01."""
    clip_norm: NotNegative | None = None
    """Gradients are scaled down to this global norm; 0 is off; None is the pipeline.config's
    gradient_clipping_by_norm."""


class FineTuneConfig(Section):
    """What the weights start from."""

    checkpoint: str | None = None
    """Checkpoint (.../ckpt-0), its folder, or the name of a fetched zoo model; None is the
    pipeline.config's, if it has one; "" starts from random weights."""
    kind: Literal["heads", "detection", "full", "classification", "config"] = "heads"
    """`heads` keeps everything that fits and starts the new classes from the old ones by name.
    `detection`, `full` and `classification` are the OD API's own; `config` takes the
    pipeline.config's fine_tune_checkpoint_type."""
    labels: str | None = None
    """The checkpoint's classes, for `heads`: a label map or list; None is COCO's, as the zoo's
    models have."""
    mapping: str = "coco-to-street"
    """Which old classes a new one starts from, for `heads`: `coco-to-street` or a YAML."""


class AugmentationConfig(Section):
    """What is done to training images."""

    preset: Literal["config", "none", "flip", "course", "strong"] = "config"
    """`config` takes the pipeline.config's own list, `none` nothing. `flip` mirrors half of the
    images; `course` crops and flips as the course's file does; `strong` adds scales, colours,
    mosaic, mixup and grey patches."""
    repeat_threshold: Share = 0.0
    """Frames with a class that fewer than this share of frames have are repeated (LVIS)."""


class BatchNormConfig(Section):
    """What batch-norm layers do."""

    mode: Literal["train", "freeze", "freeze_statistics", "sync"] = "train"
    """`train` follows the pipeline.config: statistics of a worker's own batch, unless its
    freeze_batchnorm (SSD) or batch_norm_trainable (Faster R-CNN) say otherwise. `freeze` keeps the
    layers as the checkpoint has them: moving averages, scales and offsets. `freeze_statistics`
    keeps the moving averages and trains scales and offsets, as the OD API's own settings do.
    `sync` takes the statistics of all workers' images together."""
    reestimate_batches: Count | None = None
    """Batches to measure the moving averages anew with before an evaluation. None is 16 where the
    run started from random weights and the averages have not settled yet; 0 leaves them."""


class EvaluationConfig(Section):
    """Validation mAP during the run."""

    every: Positive | None = None
    """Steps between evaluations; None is a tenth of the run."""
    frames: Positive | None = None
    """At most this many validation frames, spread over all records; None is all."""
    batch_size: Positive = 8
    """Images a worker is given at a time."""
    patience: Positive | None = None
    """Stop early after this many evaluations without a better mAP; None never does."""


class CheckpointConfig(Section):
    """What a lost worker costs."""

    every: Positive | None = None
    """Steps between checkpoints, beside those behind evaluations; None is a twentieth of the
    run."""
    keep: Positive = 2
    """Checkpoints kept in last/."""


class DivergenceConfig(Section):
    """A loss that is not finite or blows up."""

    action: Literal["stop", "rollback"] = "stop"
    """Stop with a message, or go back to the last checkpoint with a lower rate."""
    factor: Annotated[float, Field(gt=1)] = 10.0
    """Three losses in a row above this many times the median of the last 50 count as blown up."""
    rollbacks: Positive = 3
    """At most this many; each multiplies the rate by 0.3."""


class PruneConfig(Section):
    """Gradual magnitude pruning."""

    sparsity: Share = 0.0
    """Share of the weights that end as zero, of kernels that are pruned at all: not the first
    layer's, depthwise ones or heads. 0 is off."""
    pattern: Literal["element", "block", "channel"] = "element"
    """Single weights, blocks of four output channels, or whole output channels."""
    begin: Share = 0.1
    """Share of the run before it begins."""
    end: Share = 0.7
    """Share of the run after which the full sparsity is reached; the rest fine-tunes."""

    @model_validator(mode="after")
    def _begin_before_end(self) -> Self:
        if self.sparsity and (self.begin > self.end or self.begin == 1):
            raise ValueError(
                f"begin is {self.begin:g} and end {self.end:g}: pruning begins before its end, and "
                "before the run's; begin has to be below end, and below 1"
            )
        return self


class TrainConfig(Section):
    """`urbandet train`, jobs/train.py."""

    output: str
    """Run folder; local or s3://. An unfinished run of the same settings is resumed."""
    data: str | None = None
    """Folder with train/, val/ and label_map.pbtxt; None takes the pipeline.config's paths."""
    pipeline: str | None = None
    """The OD API's pipeline.config: a file, or the name of one of configs/models."""
    model: str | None = None
    """A model of your own instead: `my_package.module:build` (training/model.py)."""
    labels: str | None = None
    """Label map; None is the data folder's, then the pipeline.config's."""
    steps: Positive | None = None
    """Optimizer steps of the run; None is the pipeline.config's num_steps."""
    seed: Count = 0
    """Order of the records, and everything random that can be seeded."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of activations; weights and losses stay float32."""
    xla: bool = False
    """Compile the step with XLA, where the model's operations allow it."""
    weight_average: Share = 0.0
    """Decay of the weights' exponential moving average, which is what is evaluated and exported;
    0 is off, 0.999 fits runs of some thousand steps."""
    freeze: tuple[str, ...] = ()
    """Variables whose name one of these regular expressions finds stay as they are, to the bit.
    Batch norm's moving_mean and moving_variance are found too: the layer then computes with them.
    "^block_1_" finds all of a layer, "kernel$" no batch norm. The pipeline.config's
    freeze_variables is the TF1 loop's; no TF2 training reads it."""
    min_box_side: NotNegative = 0
    """Training boxes with a side below this many pixels of the network's input are left out, after
    augmentation: they count neither as objects nor, for anchors, as background. 0 leaves none out.
    The validation counts all boxes."""
    doctor: Literal["refuse", "ignore"] = "refuse"
    """Start nothing where the doctor finds an error in the pipeline.config, or train all the
    same."""
    max_bad_records: Count = 100
    """More records than this that cannot be read, in a worker's share or among the validation
    records, fail the run."""
    cache: str | None = None
    """Folder on each node for records from S3 and for what a check of records found; None is a
    folder of the user's cache."""
    workers: WorkersConfig = WorkersConfig()
    batch: BatchConfig = BatchConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    fine_tune: FineTuneConfig = FineTuneConfig()
    augmentation: AugmentationConfig = AugmentationConfig()
    batch_norm: BatchNormConfig = BatchNormConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    divergence: DivergenceConfig = DivergenceConfig()
    prune: PruneConfig = PruneConfig()
    ray: RayConfig = RayConfig()
    storage: StorageConfig = StorageConfig()

    @model_validator(mode="after")
    def _one_model(self) -> Self:
        if (self.pipeline is None) == (self.model is None):
            raise ValueError(
                "a run trains either a pipeline.config (pipeline: FILE or one of configs/models) "
                "or a model of your own (model: my_package.module:build); set one of them"
            )
        return self

    @model_validator(mode="after")
    def _what_a_model_of_your_own_needs(self) -> Self:
        if self.model is None or self.pipeline is not None:
            return self
        missing = {
            "data": self.data is None,
            "steps": self.steps is None,
            "batch.per_worker": self.batch.per_worker is None,
            "schedule.rate": self.schedule.rate is None,
            "optimizer.kind": self.optimizer.kind == "config",
            "schedule.kind": self.schedule.kind == "config",
            "augmentation.preset": self.augmentation.preset == "config",
        }
        if any(missing.values()):
            raise ValueError(
                "a model of your own has no pipeline.config to take defaults from: set "
                f"{', '.join(key for key in missing if missing[key])}"
            )
        unheard = {
            "precision": self.precision != "float32",
            "batch_norm.mode": self.batch_norm.mode != "train",
            "min_box_side": self.min_box_side > 0,
        }
        if any(unheard.values()):
            raise ValueError(
                f"{' and '.join(key for key in unheard if unheard[key])} cannot be set for a model "
                "of your own, which decides that itself: leave it out"
            )
        return self
