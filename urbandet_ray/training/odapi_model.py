"""A pipeline.config's model as a TrainableModel: the OD API's own network, inputs and losses."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

from urbandet_ray.errors import ConfigError
from urbandet_ray.models.odapi import open_odapi, without_autograph
from urbandet_ray.training.loss_counts import count_boxes, count_matches
from urbandet_ray.training.model import Tensors

ActivationPrecision = Literal["float32", "bfloat16", "float16"]
"""Of activations; variables and losses are float32."""

_POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}
_MASK_LOSS = "Loss/BoxClassifierLoss/mask_loss"


class OdApiModel:
    """Implements TrainableModel (training/model.py) over the OD API.

    Building, training and detecting may each be traced into a tf.function of its own: whether
    layers train is decided while tracing.
    """

    def __init__(
        self,
        config: Any,
        *,
        precision: ActivationPrecision = "float32",
        min_box_side: float = 0,
    ) -> None:
        """Make the model; `build` makes its variables.

        Sets Keras' global policy, which stays: the layers made later must follow it too.

        Args:
            config: TrainEvalPipelineConfig message.
            precision: of activations.
            min_box_side: boxes of a smaller side [px of the input] get the weight 0.

        Raises:
            ConfigError: images of no fixed size, or an operation without this precision.
        """
        self._odapi = open_odapi()
        self._config = config
        self.kind = str(config.model.WhichOneof("model"))
        self._shape = self._fixed_shape()
        self.input_size_hw = (self._shape[0], self._shape[1])
        self._check_precision(precision)
        self._odapi.tf.keras.mixed_precision.set_global_policy(_POLICIES[precision])
        self._model = self._odapi.model_builder.build(config.model, is_training=True)
        util = self._odapi.config_util
        self.num_classes = int(util.get_number_of_classes(config.model))
        self._resize = self._odapi.image_resizer_builder.build(
            util.get_image_resizer_config(config.model)
        )
        self.learns_masks = self._has_mask_head()
        self._min_box_side = min_box_side
        self._grids: Sequence[tuple[int, int]] = ()
        self._room = 0

    @property
    def message(self) -> Any:
        """The message of its meta-architecture in the pipeline.config's model."""
        return getattr(self._config.model, self.kind)

    def make_room(self, boxes: int) -> None:
        """Let `example` hold so many boxes an image where the config's limit is lower."""
        self._room = boxes

    @without_autograph
    def example(self, image: Tensors) -> tuple[Tensors, Tensors]:
        """Features and labels of one image: preprocessed, resized, one-hot, padded.

        Where masks are learnt, boxes without one get an empty mask of weight zero.
        """
        names = self._odapi.fields.InputDataFields
        given = self._with_mask_weights(image) if self.learns_masks else dict(image)
        if not self.learns_masks:
            given.pop(names.groundtruth_instance_masks, None)
            given.pop(names.groundtruth_instance_mask_weights, None)
        inputs, train = self._odapi.inputs, self._config.train_config
        whole = inputs.transform_input_data(
            given,
            model_preprocess_fn=self._model.preprocess,
            image_resizer_fn=self._resize,
            num_classes=self.num_classes,
            merge_multiple_boxes=train.merge_multiple_label_boxes,
        )
        if self._min_box_side:
            boxes = whole[names.groundtruth_boxes] * (self._shape * 2)
            sides = self._odapi.tf.reduce_min(boxes[:, 2:] - boxes[:, :2], axis=1)
            seen = self._odapi.tf.cast(sides >= self._min_box_side, self._odapi.tf.float32)
            whole[names.groundtruth_weights] *= seen
        padded = inputs.pad_input_data_to_static_shapes(
            whole,
            max_num_boxes=max(self._room, self._most_boxes()),
            num_classes=self.num_classes,
            spatial_image_shape=self._shape,
        )
        features = {name: padded[name] for name in (names.image, names.true_image_shape)}
        return features, inputs._get_labels_dict(padded)

    def build(self, batch_size: int) -> None:
        """Make all variables, under the current tf.distribute strategy if there is one."""
        tf = self._odapi.tf
        height, width = self._shape
        features = {
            "image": tf.zeros([batch_size, height, width, 3]),
            "true_image_shape": tf.constant([[height, width, 3]] * batch_size, tf.int32),
        }

        @without_autograph
        def look(features: Tensors) -> None:
            with self._phase(training=False):
                predicted = self._predict(features)
            if self.kind == "ssd":
                maps = predicted["feature_maps"]
                self._grids = self._model._get_feature_map_spatial_dims(maps)

        if tf.distribute.has_strategy():
            tf.distribute.get_strategy().run(tf.function(look), args=(features,))
        else:
            tf.function(look).get_concrete_function(features)  # tracing makes them; nothing runs

    @without_autograph
    def losses(self, features: Tensors, labels: Tensors) -> Tensors:
        """Scalar losses of a batch by the OD API's names, in training mode."""
        names, lib = self._odapi.fields.InputDataFields, self._odapi.model_lib
        shapes, train = features[names.true_image_shape], self._config.train_config
        with self._phase(training=True):
            truth = lib.unstack_batch(
                dict(labels), unpad_groundtruth_tensors=train.unpad_groundtruth_tensors
            )
            lib.provide_groundtruth(self._model, truth)
            predictions = self._predict(features)
            losses = dict(self._model.loss(predictions, shapes))
            if _MASK_LOSS in losses:
                # Faster R-CNN overlooks mask weights: its box weights decide, so the mask loss is
                # taken again with both; the rest of the second pass is pruned from the graph
                weights = zip(
                    truth[names.groundtruth_weights],
                    truth[names.groundtruth_instance_mask_weights],
                    strict=True,
                )
                masked = {names.groundtruth_weights: [box * mask for box, mask in weights]}
                lib.provide_groundtruth(self._model, {**truth, **masked})
                losses[_MASK_LOSS] = self._model.loss(predictions, shapes)[_MASK_LOSS]
            if train.add_regularization_loss:
                losses.update(self._regularization())
        return losses

    @without_autograph
    def loss_counts(self, labels: Tensors) -> Tensors:
        """What the OD API divides a batch's losses by (loss_counts.py)."""
        if self.kind == "center_net":
            return count_boxes(self._config.model.center_net, labels)
        if self.kind != "ssd":
            return {}
        with self._phase(training=True):
            train = self._config.train_config
            return count_matches(self._model, train, self._grids, self._shape, labels)

    @without_autograph
    def detect(self, features: Tensors) -> Tensors:
        """Detections of a batch in inference mode; see TrainableModel.detect."""
        tf = self._odapi.tf
        # of a known number of images the OD API traces the suppression image by image
        features = {
            name: tf.compat.v1.placeholder_with_default(value, [None, *value.shape[1:]])
            for name, value in features.items()
        }
        with self._phase(training=False):
            found = self._model.postprocess(self._predict(features), features["true_image_shape"])
        wanted = ("detection_boxes", "detection_scores", "detection_classes")
        return {name: tf.cast(found[name], tf.float32) for name in wanted}

    @property
    def trainable_variables(self) -> Sequence[Any]:
        """Variables the optimizer changes."""
        return tuple(self._model.trainable_variables)

    @property
    def variables(self) -> Sequence[Any]:
        """All variables, batch-norm's moving averages included."""
        return tuple(self._model.variables)

    @property
    def batch_norms(self) -> Sequence[Any]:
        """Batch-norm layers of every make: Keras', the OD API's freezable, the Model Garden's."""
        wanted = ("moving_mean", "moving_variance", "momentum")
        return tuple(
            module
            for module in self._model.submodules
            if all(hasattr(module, name) for name in wanted)
        )

    @property
    def trackable(self) -> Any:
        """The OD API's model: tf.train.Checkpoint(model=...) is what its exporter reads."""
        return self._model

    @contextmanager
    def _phase(self, *, training: bool) -> Iterator[None]:
        """Training or inference, for what is called or traced inside."""
        was = self._model._is_training
        self._set_phase(training)
        try:
            yield
        finally:
            self._set_phase(False)
            self._model._is_training = was

    def _set_phase(self, training: bool) -> None:
        self._model._is_training = training
        with warnings.catch_warnings():
            # deprecated, but the OD API's layers know no other way
            warnings.filterwarnings("ignore", message=".*set_learning_phase.*")
            self._odapi.tf.keras.backend.set_learning_phase(training)

    def _predict(self, features: Tensors) -> Any:
        side = self._model.get_side_inputs(features)
        predicted = self._model.predict(features["image"], features["true_image_shape"], **side)
        return self._in_float32(predicted)

    def _in_float32(self, nested: Any) -> Any:
        tf = self._odapi.tf

        def cast(value: Any) -> Any:
            low = isinstance(value, tf.Tensor) and value.dtype in (tf.bfloat16, tf.float16)
            return tf.cast(value, tf.float32) if low else value

        return tf.nest.map_structure(cast, nested)

    def _regularization(self) -> Tensors:
        tf = self._odapi.tf
        terms = [tf.cast(term, tf.float32) for term in self._model.regularization_losses()]
        return {"Loss/regularization_loss": tf.add_n(terms)} if terms else {}

    def _with_mask_weights(self, image: Tensors) -> Tensors:
        """The image's masks and their weights, filled up with empty ones of weight zero."""
        tf, names = self._odapi.tf, self._odapi.fields.InputDataFields
        count = tf.shape(image[names.groundtruth_boxes])[0]
        size = tf.shape(image[names.image])[:2]
        masks = image.get(names.groundtruth_instance_masks)
        if masks is None:
            masks = tf.zeros(tf.concat([[0], size], 0))
        held = tf.shape(masks)[0]
        weights = image.get(names.groundtruth_instance_mask_weights)
        if weights is None:
            weights = tf.ones([held])
        lacking = count - held
        empty = tf.zeros(tf.concat([[lacking], size], 0))
        return {
            **image,
            names.groundtruth_instance_masks: tf.concat([masks, empty], 0),
            names.groundtruth_instance_mask_weights: tf.concat([weights, tf.zeros([lacking])], 0),
        }

    def _most_boxes(self) -> int:
        """The reader's limit, as in the OD API, or train_config's where only that is set."""
        reader, train = self._config.train_input_reader, self._config.train_config
        if not reader.HasField("max_number_of_boxes") and train.HasField("max_number_of_boxes"):
            return int(train.max_number_of_boxes)
        return int(reader.max_number_of_boxes)

    def _has_mask_head(self) -> bool:
        model = getattr(self._config.model, self.kind)
        if self.kind == "faster_rcnn":
            return bool(model.number_of_stages == 3)
        return self.kind == "center_net" and bool(model.HasField("mask_estimation_task"))

    def _fixed_shape(self) -> list[int]:
        util = self._odapi.config_util
        shape = util.get_spatial_image_size(util.get_image_resizer_config(self._config.model))
        if min(shape) < 1:
            raise ConfigError(
                f"model.{self.kind}.image_resizer gives images of different sizes, which do not "
                "fit into one batch: set fixed_shape_resizer { height width }, or "
                "keep_aspect_ratio_resizer { pad_to_max_dimension: true }"
            )
        return [int(side) for side in shape]

    def _check_precision(self, precision: ActivationPrecision) -> None:
        if precision not in _POLICIES:
            raise ConfigError(f"precision is {precision!r}: give one of {', '.join(_POLICIES)}")
        crops = (
            self.kind == "faster_rcnn"
            and not self._config.model.faster_rcnn.use_matmul_crop_and_resize
        )
        if precision == "bfloat16" and crops:
            raise ConfigError(
                "TensorFlow crops no bfloat16 features: set use_matmul_crop_and_resize: true in "
                "model.faster_rcnn, or precision: float32"
            )
