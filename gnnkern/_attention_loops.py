"""What the attention ops ask of a backend for GPUs, in the terms of the kernels that it has.

KIND says what an edge's score is: "gat", "dot" or "gatv2" (see gnnkern/_triton/attention.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gnnkern._edge_loops import RowLoop, chunk_states
from gnnkern._native import Csr, accumulate_dtype
from gnnkern._walk import Walk
from gnnkern.reference.philox import dropout_threshold

__all__ = [
    "AttentionLoops",
    "Dropout",
    "Gatv2Gradients",
    "Operands",
    "Results",
    "SourceGradients",
    "Walked",
]


class Dropout(NamedTuple):
    """The last arguments of a kernel that drops: nothing is dropped where there is no seed."""

    seed: Tensor | None  # int64 [1]
    threshold: int  # the first word that is kept, less 2^31: a number of 32 bits
    scale: float  # what an element that is kept is multiplied by

    @classmethod
    def of(cls, seed: Tensor | None, probability: float) -> Dropout:
        """Dropout with this probability."""
        if seed is None:
            return cls(None, 0, 1.0)
        return cls(seed, dropout_threshold(probability) - 2**31, 1.0 / (1.0 - probability))


class Operands(NamedTuple):
    """What scores and values are made of."""

    own: Tensor  # [num_rows, H, D]; gat: [num_rows, H]
    key: Tensor  # [num_cols, H, D]; gat: [num_cols, H]
    value: Tensor  # [num_cols, H, D]
    att: Tensor | None = None  # gatv2: [H, D]
    edge_score: Tensor | None = None  # [E, H]
    edge_x: Tensor | None = None  # [E, H, D]

    def contiguous(self) -> Operands:
        """The same, each in one piece."""
        return Operands(*(None if t is None else t.contiguous() for t in self))  # type: ignore[arg-type]


class Walked(NamedTuple):
    """What a walk over the edges of rows computes with."""

    walk: Walk
    kind: str
    operands: Operands
    factor: float  # gat, gatv2: the slope below 0; dot: what products are multiplied by
    dropout: Dropout


class Results(NamedTuple):
    """What a forward fills, with the states of the chunks of long rows where there are any."""

    out: Tensor  # [num_rows, H, D]
    wide_out: Tensor | None  # the same before it is rounded, where it is saved
    log_sum_exp: Tensor  # [num_rows, H]
    largest: Tensor | None  # [num_chunks, H]
    total: Tensor | None  # [num_chunks, H]
    acc: Tensor | None  # [num_chunks, H, D]


class SourceGradients(NamedTuple):
    """What a walk by source fills; empty where it was not asked for."""

    value: Tensor  # [num_src, H, D]
    key: Tensor  # [num_src, H, D]; gat: [num_src, H]
    score: Tensor  # [E, H] in accumulation precision; dot: of the dot products
    edge_score: Tensor  # [E, H]
    edge_x: Tensor  # [E, H, D]


class Gatv2Gradients(NamedTuple):
    """What the two walks of GATv2 return; None where it was not asked for."""

    x_src: Tensor | None  # [num_src, H, D]
    x_dst: Tensor  # [num_dst, H, D]
    att_sums: Tensor  # [any, H, D] in accumulation precision, to be summed
    edge_x: Tensor | None  # [E, H, D]


@dataclass(frozen=True)
class AttentionLoops:
    """Attention by the kernels of a backend.

    They fill tensors that they are given, all contiguous. `options` are the backend's own, such as
    tiles that take the place of its rule.
    """

    rows: RowLoop
    # (walked, results, **options)
    run_forward: Callable[..., None]
    # (statistics, log_sum_exp, out, grad, score)
    run_statistics: Callable[..., None]
    # (walked over the reversed graph, grad, statistics, gradients, sums of chunks of value and of
    #  key, **options); the operands are those of the forward
    run_by_source: Callable[..., None]
    # (csr, key, grad_score, edge_x): the sum of (key + edge_x) * grad_score over each row
    sum_keys: Callable[[Csr, Tensor, Tensor, Tensor | None], Tensor]
    # (walked, the reversed graph's walk, grad, statistics, need_x_src, need_edge_x)
    run_gatv2_backward: Callable[..., Gatv2Gradients]

    def attend(
        self,
        csr: Csr,
        kind: str,
        operands: Operands,
        factor: float,
        dropout: Dropout,
        save: bool,
        **options: Any,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(out [num_rows, H, D], log_sum_exp [num_rows, H], wide_out).

        wide_out is `out` before it is rounded where `save` asks for it and value is a half,
        otherwise empty. The gradient subtracts <out, grad> from numbers close to it and needs all
        its digits.
        """
        operands = operands.contiguous()
        value = operands.value
        walk = self.rows.walk_of(csr)
        _, heads, head_width = value.shape
        wide = accumulate_dtype(value.dtype)
        out = value.new_empty((walk.num_rows, heads, head_width))
        log_sum_exp = value.new_empty(out.shape[:2], dtype=wide)
        keeps_wide = save and wide != value.dtype
        wide_out = log_sum_exp.new_empty(out.shape if keeps_wide else (0,))
        if out.numel() == 0:
            return out, log_sum_exp.fill_(-torch.inf), wide_out
        largest = total = acc = None
        if walk.plan is not None:
            largest, total = log_sum_exp.new_empty((2, walk.num_chunks, heads)).unbind()
            acc = log_sum_exp.new_empty((walk.num_chunks, heads, head_width))
        results = Results(out, wide_out if keeps_wide else None, log_sum_exp, largest, total, acc)
        self.run_forward(Walked(walk, kind, operands, factor, dropout), results, **options)
        return out, log_sum_exp, wide_out

    def statistics_of(
        self,
        out: Tensor,  # [num_dst, H, D] in accumulation precision
        log_sum_exp: Tensor,  # [num_dst, H]
        grad: Tensor,  # [num_dst, H, D] contiguous
        score: Tensor | None = None,  # [num_dst, H] contiguous
    ) -> Tensor:
        """[num_dst, H, 2 or 3]: log-sum-exp and <out, grad>, and the score where one is given."""
        statistics = out.new_empty((*out.shape[:2], 2 if score is None else 3))
        self.run_statistics(statistics, log_sum_exp, out.contiguous(), grad, score)
        return statistics

    def source_gradients(
        self,
        rev: Csr,
        kind: str,
        operands: Operands,  # `own`: of dot, the queries
        factor: float,
        dropout: Dropout,
        grad: Tensor,  # [num_dst, H, D] contiguous
        statistics: Tensor,  # [num_dst, H, words]
        need_edge_score: bool,
        need_edge_x: bool,
        **options: Any,
    ) -> SourceGradients:
        """Gradients of keys, values, scores and edges."""
        walk = self.rows.walk_of(rev)
        operands = operands.contiguous()
        value, key = operands.value, operands.key
        num_edges, (_, heads, head_width) = walk.num_edges, value.shape
        grads = SourceGradients(
            torch.empty_like(value),
            torch.empty_like(key),
            value.new_empty((num_edges, heads), dtype=accumulate_dtype(value.dtype)),
            value.new_empty((num_edges, heads) if need_edge_score else (0,)),
            value.new_empty((num_edges, heads, head_width) if need_edge_x else (0,)),
        )
        if num_edges == 0 or value.numel() == 0:
            return SourceGradients(*(tensor.zero_() for tensor in grads))
        sums = [
            chunk_states(walk, table.shape[1:].numel(), "sum", False, value)[0]
            for table in (value, key)
        ]
        walked = Walked(walk, kind, operands, factor, dropout)
        self.run_by_source(walked, grad, statistics, grads, *sums, **options)
        return grads

    # -- ops -----------------------------------------------------------------------------------

    def gat_forward(
        self,
        csr: Csr,
        x: Tensor,  # [num_src, H, D]
        score_src: Tensor,  # [num_src, H]
        score_dst: Tensor,  # [num_dst, H]
        edge_score: Tensor | None,  # [E, H]
        negative_slope: float,
        dropout: float,
        seed: Tensor | None,  # int64 [1]
        save: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(out [num_dst, H, D], log_sum_exp [num_dst, H], wide_out), as `attend` returns them."""
        operands = Operands(score_dst, score_src, x, edge_score=edge_score)
        return self.attend(csr, "gat", operands, negative_slope, Dropout.of(seed, dropout), save)

    def gat_backward(
        self,
        fwd: Csr,
        rev: Csr,
        x: Tensor,  # [num_src, H, D]
        score_src: Tensor,  # [num_src, H]
        score_dst: Tensor,  # [num_dst, H]
        edge_score: Tensor | None,  # [E, H]
        seed: Tensor | None,  # int64 [1]
        out: Tensor,  # [num_dst, H, D] in accumulation precision
        log_sum_exp: Tensor,  # [num_dst, H]
        grad: Tensor,  # [num_dst, H, D]
        negative_slope: float,
        dropout: float,
        need_edge_score: bool,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Gradients of x, score_src, score_dst and edge_score, the last empty if not needed."""
        grad = grad.contiguous()
        grads = self.source_gradients(
            rev,
            "gat",
            Operands(score_dst, score_src, x, edge_score=edge_score),
            negative_slope,
            Dropout.of(seed, dropout),
            grad,
            self.statistics_of(out, log_sum_exp, grad, score_dst.contiguous()),
            need_edge_score,
            False,
        )
        grad_score_dst = self.rows.sum_edges(fwd, grads.score).to(x.dtype)
        return grads.value, grads.key, grad_score_dst, grads.edge_score

    def dot_forward(
        self,
        csr: Csr,
        query: Tensor,  # [num_dst, H, D]
        key: Tensor,  # [num_src, H, D]
        value: Tensor,  # [num_src, H, D]
        edge_bias: Tensor | None,  # [E, H]
        edge_x: Tensor | None,  # [E, H, D]
        scale: float,
        dropout: float,
        seed: Tensor | None,  # int64 [1]
        save: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(out [num_dst, H, D], log_sum_exp [num_dst, H], wide_out), as `attend` returns them."""
        operands = Operands(query, key, value, edge_score=edge_bias, edge_x=edge_x)
        return self.attend(csr, "dot", operands, scale, Dropout.of(seed, dropout), save)

    def dot_backward(
        self,
        fwd: Csr,
        rev: Csr,
        query: Tensor,  # [num_dst, H, D]
        key: Tensor,  # [num_src, H, D]
        value: Tensor,  # [num_src, H, D]
        edge_bias: Tensor | None,  # [E, H]
        edge_x: Tensor | None,  # [E, H, D]
        seed: Tensor | None,  # int64 [1]
        out: Tensor,  # [num_dst, H, D] in accumulation precision
        log_sum_exp: Tensor,  # [num_dst, H]
        grad: Tensor,  # [num_dst, H, D]
        scale: float,
        dropout: float,
        need: list[bool],  # of query, edge_bias, edge_x
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Gradients of query, key, value, edge_bias and edge_x; empty where `need` says so."""
        need_query, need_edge_bias, need_edge_x = need
        grad = grad.contiguous()
        grads = self.source_gradients(
            rev,
            "dot",
            Operands(query, key, value, edge_score=edge_bias, edge_x=edge_x),
            scale,
            Dropout.of(seed, dropout),
            grad,
            self.statistics_of(out, log_sum_exp, grad),
            need_edge_bias,
            need_edge_x,
        )
        grad_query = query.new_empty(0)
        if need_query:
            grad_query = self.sum_keys(fwd, key, grads.score, edge_x)
        return grad_query, grads.key, grads.value, grads.edge_score, grads.edge_x

    def gatv2_forward(
        self,
        csr: Csr,
        x_src: Tensor,  # [num_src, H, D]
        x_dst: Tensor,  # [num_dst, H, D]
        att: Tensor,  # [H, D]
        edge_x: Tensor | None,  # [E, H, D]
        negative_slope: float,
        dropout: float,
        seed: Tensor | None,  # int64 [1]
        save: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(out [num_dst, H, D], log_sum_exp [num_dst, H], wide_out), as `attend` returns them."""
        x_src = x_src.contiguous()
        operands = Operands(x_dst, x_src, x_src, att=att, edge_x=edge_x)
        return self.attend(csr, "gatv2", operands, negative_slope, Dropout.of(seed, dropout), save)

    def gatv2_backward(
        self,
        csr: Csr,
        rev: Csr,
        x_src: Tensor,  # [num_src, H, D]
        x_dst: Tensor,  # [num_dst, H, D]
        att: Tensor,  # [H, D]
        edge_x: Tensor | None,  # [E, H, D]
        negative_slope: float,
        dropout: float,
        seed: Tensor | None,  # int64 [1]
        out: Tensor,  # [num_dst, H, D] in accumulation precision
        log_sum_exp: Tensor,  # [num_dst, H]
        grad: Tensor,  # [num_dst, H, D]
        need_x_src: bool,
        need_edge_x: bool,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Gradients of x_src, x_dst, att and edge_x; empty where a `need` is not set."""
        num_edges = csr.indices.shape[0]
        nothing = x_src.new_empty(0)
        if num_edges == 0 or grad.numel() == 0:
            edge_shape = (num_edges, *att.shape)
            return (
                x_src.new_zeros(x_src.shape) if need_x_src else nothing,
                x_dst.new_zeros(x_dst.shape),
                att.new_zeros(att.shape),
                x_src.new_zeros(edge_shape) if need_edge_x else x_src.new_empty(0),
            )
        grad, x_src = grad.contiguous(), x_src.contiguous()
        grads = self.run_gatv2_backward(
            Walked(
                self.rows.walk_of(csr),
                "gatv2",
                Operands(x_dst, x_src, x_src, att=att, edge_x=edge_x).contiguous(),
                negative_slope,
                Dropout.of(seed, dropout),
            ),
            self.rows.walk_of(rev),
            grad,
            self.statistics_of(out, log_sum_exp, grad),
            need_x_src,
            need_edge_x,
        )
        # Sums of sums: in double, since there may be very many.
        grad_att = grads.att_sums.sum(0, dtype=torch.float64).to(att.dtype)
        grad_x_src = nothing if grads.x_src is None else grads.x_src
        grad_edge_x = x_src.new_empty(0) if grads.edge_x is None else grads.edge_x
        return grad_x_src, grads.x_dst, grad_att, grad_edge_x
