"""How far a result may be from the float64 reference: one table and one rule.

A result may be twice as wrong as the same computation in plain torch at the same precision, plus a
floor: a few units in the last place, for what torch happens to get exactly. In float64 plain torch
is the reference itself, so that the floor alone stands for its rounding.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Floor(NamedTuple):
    """The error allowed beside that of plain torch."""

    largest: float  # of any element, as a part of the largest expected value
    relative_l2: float  # of all elements together, where none can hide behind a large one


FLOOR = {
    torch.float64: Floor(1e-12, 1e-12),
    torch.float32: Floor(1e-6, 5e-7),
    # A gradient may start from a result that was rounded, which plain torch keeps in float32.
    torch.float16: Floor(1e-3, 8e-4),
    torch.bfloat16: Floor(8e-3, 6e-3),
}
DTYPES = tuple(FLOOR)
HALVES = (torch.float16, torch.bfloat16)


def assert_as_good_as_torch(
    actual: Tensor,
    plain: Tensor,  # the reference at the precision of `actual`
    exact: Tensor,  # the reference in float64
    what: str = "out",
    terms: float = 0.0,
) -> None:
    """Assert shape, dtype, where the non-finite values are, and the error by the rule above.

    `terms` is the size of the terms that a result sums: where they cancel, the floor is a part of
    them and not of what is left.
    """
    assert actual.shape == exact.shape, f"{what}: shape {actual.shape}, expected {exact.shape}"
    assert actual.dtype == plain.dtype, f"{what}: dtype {actual.dtype}, expected {plain.dtype}"
    floor = FLOOR[actual.dtype]
    actual, plain, exact = actual.double(), plain.double(), exact.double()
    finite = exact.isfinite() & plain.isfinite()
    torch.testing.assert_close(
        actual[~finite], plain[~finite], rtol=0, atol=0, equal_nan=True, msg=f"{what}: inf or NaN"
    )
    actual, plain, exact = actual[finite], plain[finite], exact[finite]
    if exact.numel() == 0:
        return
    _assert_error(
        f"{what}: largest error",
        error=(actual - exact).abs().max(),
        plain_error=(plain - exact).abs().max(),
        floor=floor.largest * max(float(exact.abs().max()), terms),
    )
    _assert_error(
        f"{what}: error in L2",
        error=(actual - exact).norm(),
        plain_error=(plain - exact).norm(),
        floor=floor.relative_l2 * max(float(exact.norm()), terms),
    )


def _assert_error(what: str, error: Tensor, plain_error: Tensor, floor: float) -> None:
    # A NaN fails the comparison.
    assert error <= 2 * plain_error + floor, (
        f"{what} is {error:.3g}, allowed are twice {plain_error:.3g} (plain torch) + {floor:.3g}"
    )
