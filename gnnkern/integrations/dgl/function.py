"""DGL's built-in message and reduce functions: descriptions that `update_all` turns into ops.

Messages are `copy_u(field, out)` and `copy_e(field, out)`, and for any two different ends of `u`
(source), `v` (destination) and `e` (edge) `u_add_v(field, field, out)`, likewise `sub`, `mul`,
`div` and `dot`. Reductions are `sum(message, out)`, `max`, `min` and `mean`. Shapes are those of
`gnnkern.integrations.dgl.ops`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import permutations
from typing import TYPE_CHECKING, Any

__all__ = ["Message", "Reduce", "copy_e", "copy_u"]

BINARY = ("add", "sub", "mul", "div", "dot")
REDUCES = ("sum", "max", "min", "mean")


@dataclass(frozen=True)
class Message:
    """A message that is a field of one end, or two fields combined.

    Attributes:
        op: "copy", "add", "sub", "mul", "div" or "dot".
        lhs: Where the first operand lies: "u", "v" or "e".
        lhs_field: The name of its field.
        rhs: Where the second lies; None for a copy.
        rhs_field: The name of its field; None for a copy.
        out: The name of the message.
    """

    op: str
    lhs: str
    lhs_field: str
    rhs: str | None
    rhs_field: str | None
    out: str

    @property
    def name(self) -> str:
        """The name under which the function is known: `copy_u`, `u_mul_e`."""
        return f"copy_{self.lhs}" if self.rhs is None else f"{self.lhs}_{self.op}_{self.rhs}"


@dataclass(frozen=True)
class Reduce:
    """A reduction of messages into a field of their destination.

    Attributes:
        op: "sum", "max", "min" or "mean".
        message: The name of the message.
        out: The name of the result.
    """

    op: str
    message: str
    out: str

    @property
    def name(self) -> str:
        """The name under which the function is known."""
        return self.op


def copy_u(u: str, out: str) -> Message:
    """The message `out` is field `u` of the source."""
    return Message("copy", "u", u, None, None, out)


def copy_e(e: str, out: str) -> Message:
    """The message `out` is field `e` of the edge."""
    return Message("copy", "e", e, None, None, out)


def _binary(lhs: str, op: str, rhs: str) -> Callable[[str, str, str], Message]:
    def function(lhs_field: str, rhs_field: str, out: str) -> Message:
        return Message(op, lhs, lhs_field, rhs, rhs_field, out)

    function.__name__ = function.__qualname__ = f"{lhs}_{op}_{rhs}"
    function.__doc__ = f"The message `out` is `lhs_field` of {lhs} {op} `rhs_field` of {rhs}."
    return function


def _reduction(op: str) -> Callable[[str, str], Reduce]:
    def function(msg: str, out: str) -> Reduce:
        return Reduce(op, msg, out)

    function.__name__ = function.__qualname__ = op
    function.__doc__ = f"The field `out` of a node is the {op} of its messages `msg`, 0 for none."
    return function


_MADE: dict[str, Callable[..., Any]] = {
    f"{lhs}_{op}_{rhs}": _binary(lhs, op, rhs)
    for lhs, rhs in permutations("uve", 2)
    for op in BINARY
} | {op: _reduction(op) for op in REDUCES}
globals().update(_MADE)
__all__ += list(_MADE)

if TYPE_CHECKING:

    def __getattr__(name: str) -> Callable[..., Any]: ...
