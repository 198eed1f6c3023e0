"""The reference for codes of strings: which ones a column has."""

import numpy as np
from numpy.typing import NDArray

Codes = NDArray[np.uint32]


def distinct(codes: Codes, scratch: Codes) -> tuple[Codes, Codes]:
    """Return the codes of a column, in the order in which they first come, and where each row's is.

    `scratch` is as long as the string table, all 0, and is so again afterwards. IndexError for a
    code beyond it.
    """
    wanted = codes.tolist()
    if wanted and max(wanted) >= len(scratch):
        code = next(code for code in wanted if code >= len(scratch))
        raise IndexError(f"code {code} of a table of {len(scratch)}")
    numbers: dict[int, int] = {}
    places = [numbers.setdefault(code, len(numbers)) for code in wanted]
    return np.array(list(numbers), np.uint32), np.array(places, np.uint32)
