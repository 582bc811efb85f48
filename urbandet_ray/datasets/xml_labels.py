"""Labels that are XML: Pascal VOC's files, one an image, and CVAT's, one for all."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from urbandet_ray.datasets.file_index import FileIndex
from urbandet_ray.errors import InputError
from urbandet_ray.storage import Storage

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element


def read_xml(index: FileIndex, path: str, storage: Storage) -> Element:
    """The root of an XML file; entities are not expanded, whoever wrote it.

    Raises:
        InputError: it is no XML, or defines entities.
    """
    from xml.etree.ElementTree import ParseError

    from defusedxml import DefusedXmlException
    from defusedxml.ElementTree import fromstring

    try:
        root: Element = fromstring(storage.read_bytes(index.uri_of(path)))
    except (ParseError, DefusedXmlException, ValueError) as error:
        raise InputError(
            f"{index.uri_of(path)} is no XML that can be read ({error!r}): expected Pascal VOC's "
            "or CVAT's labels, whole; export it again"
        ) from None
    return root


def xml_format(root: Element) -> str | None:
    """ "voc" or "cvat" by the root; None for something else."""
    if root.tag == "annotations":
        return "cvat"
    is_voc = root.tag == "annotation" and (root.find("filename") is not None or has_objects(root))
    return "voc" if is_voc else None


def first_xml_format(index: FileIndex, storage: Storage) -> tuple[str, str] | None:
    """Format and path of the first XML file that holds labels; few files are looked into.

    Raises:
        InputError: the file that was named itself is no XML.
    """
    for path in index.ending(".xml")[:20]:
        try:
            found = xml_format(read_xml(index, path, storage))
        except InputError:
            if index.chosen is not None:
                raise
            continue
        if found is not None:
            return found, path
    return None


def has_objects(root: Element) -> bool:
    """Whether a VOC file has any object."""
    return root.find("object") is not None


def text_of(element: Element, name: str) -> str:
    """The text of a child; "" without one."""
    return (element.findtext(name) or "").strip()


def numbers_of(element: Element, *names: str) -> list[float] | None:
    """Children that are numbers; None where one is not there or is none."""
    return as_numbers(text_of(element, name) for name in names)


def as_numbers(texts: Iterator[str]) -> list[float] | None:
    """All texts as numbers that are finite; None where one is not."""
    try:
        found = [float(text) for text in texts]
    except ValueError:
        return None
    return found if all(map(math.isfinite, found)) else None


def flag(text: str) -> bool | None:
    """1 and true, 0 and false, as annotation tools write them; None for anything else."""
    word = text.strip().lower()
    if word in ("1", "true", "yes"):
        return True
    return False if word in ("0", "false", "no") else None
