"""Label maps as files: the one place that reads them."""

from urbandet_ray.errors import LabelError
from urbandet_ray.labels import STREET_LABELS, LabelMap
from urbandet_ray.storage import Storage


def read_labels(uri: str | None, storage: Storage) -> LabelMap:
    """The label map at `uri`, or the course's.

    Raises:
        LabelError: it is no label map.
    """
    if uri is None:
        return STREET_LABELS
    try:
        text = storage.read_bytes(uri).decode()
    except UnicodeDecodeError:
        raise LabelError(f"{uri} is not text, expected a label_map.pbtxt") from None
    return LabelMap.parse(text, uri)
