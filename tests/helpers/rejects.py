"""Bad arguments, and the errors that must name them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor


@dataclass(frozen=True)
class Reject:
    """One bad argument: which, what is wrong with it, and the error that says so."""

    argument: str
    wrong: str
    value: Any
    error: type[Exception]

    def __str__(self) -> str:
        return f"{self.argument}-{self.wrong}"


def each_reject(*groups: list[Reject]) -> pytest.MarkDecorator:
    """Run a test with `reject` = every bad argument of the groups."""
    return pytest.mark.parametrize("reject", sum(groups, []), ids=str)


def bad_floats(
    argument: str,
    good: Tensor,
    *bad_shapes: tuple[int, ...],
    beside_others: bool = False,  # whether another tensor's dtype has to be the same
    optional: bool = False,
) -> list[Reject]:
    """Return everything that can be wrong with a differentiable tensor."""
    wrong_dtypes = [torch.int64, torch.int32, torch.bool, torch.complex64]
    if beside_others:
        wrong_dtypes += [torch.float64, torch.float16]
    return _bad_tensors(argument, good, bad_shapes, wrong_dtypes, optional)


def bad_indices(argument: str, good: Tensor, *bad_shapes: tuple[int, ...]) -> list[Reject]:
    """Return everything but its content that can be wrong with a tensor of positions."""
    wrong_dtypes = [torch.float32, torch.float64, torch.bool, torch.int16, torch.uint8]
    return _bad_tensors(argument, good, bad_shapes, wrong_dtypes, optional=False)


def _bad_tensors(
    argument: str,
    good: Tensor,
    bad_shapes: tuple[tuple[int, ...], ...],
    bad_dtypes: list[torch.dtype],
    optional: bool,
) -> list[Reject]:
    not_tensors = {"list": good.tolist(), "numpy": good.numpy(), "number": 1.0, "string": "x"}
    if not optional:
        not_tensors["None"] = None
    return [
        *(Reject(argument, name, value, TypeError) for name, value in not_tensors.items()),
        *(Reject(argument, str(dtype)[6:], good.to(dtype), TypeError) for dtype in bad_dtypes),
        *(
            Reject(argument, "x".join(map(str, shape)) or "0d", good.new_zeros(shape), ValueError)
            for shape in bad_shapes
        ),
        Reject(argument, "meta", good.to("meta"), ValueError),
    ]


def bad_choices(argument: str, *values: str) -> list[Reject]:
    """Return what can be wrong with an option that is one of a few words."""
    return [
        *(Reject(argument, value or "no_word", value, ValueError) for value in values),
        Reject(argument, "number", 3, (TypeError, ValueError)),
        Reject(argument, "None", None, (TypeError, ValueError)),
    ]


def bad_graphs(argument: str) -> list[Reject]:
    """Return what is not a graph."""
    edge_index = torch.zeros(2, 3, dtype=torch.int64)
    return [
        Reject(argument, "edge_index", edge_index, TypeError),
        Reject(argument, "None", None, TypeError),
    ]


def check_rejects(
    op: Callable[..., Tensor], arguments: dict[str, Any], reject: Reject, backend: str
) -> None:
    """Assert that good arguments pass, and the bad one raises an error with both names."""
    op(**arguments, backend=backend)
    assert reject.argument in arguments
    # Of two tensors on two devices, either may be the one in the wrong place.
    wrong = "must be on" if reject.wrong == "meta" else rf"\b{reject.argument}\b"
    match = rf"{op.__name__}: .*{wrong}"
    with pytest.raises(reject.error, match=match):
        op(**{**arguments, reject.argument: reject.value}, backend=backend)
