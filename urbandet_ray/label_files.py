"""Label maps as files: the one place that reads them, in one encoding and with one refusal."""

from __future__ import annotations

import logging

from urbandet_ray.errors import LabelError
from urbandet_ray.labels import STREET_LABELS, LabelMap
from urbandet_ray.storage import Storage

_EXPECTED = "a label_map.pbtxt, or a list with a class name a line"
MAPPING_FORM = "lines such as `car: vehicle`"
"""What a file with a class mapping holds, for messages."""


def read_labels(uri: str | None, storage: Storage) -> LabelMap:
    """The label map at `uri`, or the course's; what reading it loses is logged as a warning.

    Raises:
        NotFoundError: there is no such file.
        LabelError: it is no label map.
    """
    if uri is None:
        return STREET_LABELS
    labels = LabelMap.parse(read_label_text(uri, storage), uri)
    for remark in labels.remarks:
        logging.getLogger(__name__).warning("%s: %s", uri, remark)
    return labels


def read_label_text(uri: str, storage: Storage, expected: str = _EXPECTED) -> str:
    """The text of a label map or of another file about classes.

    Args:
        uri: the file; local or s3://.
        storage: opens it.
        expected: what the file should be, for the message.

    Raises:
        NotFoundError: there is no such file.
        LabelError: it is no UTF-8 text.
    """
    return label_text(storage.read_bytes(uri), uri, expected)


def label_text(data: bytes, source: str, expected: str = _EXPECTED) -> str:
    """UTF-8 as text, without the mark that Windows' editors put in front of it.

    The mark would become a part of the first class's name.

    Raises:
        LabelError: it is no UTF-8 text.
    """
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise LabelError(
            f"{source} is not UTF-8 text (byte {error.start} is 0x{data[error.start]:02x}), "
            f"expected {expected}: save it as UTF-8"
        ) from None
