"""Tables in plain text."""

from collections.abc import Sequence


def text_table(rows: Sequence[Sequence[str]], sides: str = "l") -> str:
    """Rows of cells as columns, each as wide as its widest cell.

    Args:
        rows: equally long; the first may be the heads.
        sides: for each column `l` (to the left) or `r`; columns behind its end go to the right.

    Returns:
        A line a row, without blanks at its end; "" without rows.
    """
    columns = list(zip(*rows, strict=True))
    aligned = []
    for column, side in zip(columns, sides.ljust(len(columns), "r"), strict=False):
        width = max(map(len, column))
        aligned.append([cell.ljust(width) if side == "l" else cell.rjust(width) for cell in column])
    return "\n".join("  ".join(row).rstrip() for row in zip(*aligned, strict=True))
