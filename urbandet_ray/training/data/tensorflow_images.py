"""Which images TensorFlow's decoder, which training reads with, takes: not all that others do."""

from __future__ import annotations

import numpy as np

from urbandet_ray.errors import RecordError
from urbandet_ray.frames import Frame
from urbandet_ray.models.odapi import open_odapi
from urbandet_ray.records.images import decode_frame

_ALWAYS = ("jpeg", "png")


def check_trainable(frame: Frame) -> None:
    """Let an encoded frame pass whose pixels TensorFlow decodes as everybody else does.

    JPEG and PNG pass unseen. TensorFlow 2.21 reads a BMP's palette as grey, and refuses TIFF, BMP
    of 1 or 16 bits, WebP with alpha and animated WebP (tf.io.decode_image).

    Raises:
        RecordError: untrainable-image; undecodable-image where nobody decodes it.
    """
    if frame.format in _ALWAYS:
        return
    image = decode_frame(frame)
    tf = open_odapi().tf
    name = frame.format.upper()
    cure = "write it as JPEG or PNG into the record"
    try:
        seen = tf.io.decode_image(bytes(frame.encoded), channels=3, expand_animations=False).numpy()
    except tf.errors.OpError as error:
        told = error.message.rpartition("}} ")[2].removesuffix(" [Op:DecodeImage]")
        raise RecordError(
            "untrainable-image", f"TensorFlow does not decode this {name} ({told}): {cure}"
        ) from None
    if seen.shape != image.shape or not np.array_equal(seen, image):
        raise RecordError(
            "untrainable-image", f"TensorFlow decodes this {name} to other colours: {cure}"
        )
