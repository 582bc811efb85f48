"""Lists in the middle of a sentence, and names of any bytes as text."""

from collections.abc import Sequence


def some_of(names: Sequence[str], most: int) -> str:
    """The first names, and how many more there are: `a, b and 3 more`."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def printable(name: str) -> str:
    """A name that any output takes: valid Unicode in one line; the same where it is that already.

    Bytes of a file name that are no UTF-8 (PEP 383's lone surrogates) and signs that print nothing
    become escapes: `caf\\xe9.jpg`.
    """
    if name.isprintable():
        return name
    return "".join(one if one.isprintable() else _escaped(one) for one in name)


def _escaped(sign: str) -> str:
    number = ord(sign)
    if 0xDC80 <= number <= 0xDCFF:  # a byte, as PEP 383 hides it
        return f"\\x{number - 0xDC00:02x}"
    return sign.encode("unicode_escape").decode()
