"""Aggregations scaled by how many neighbours there are, compared with the training graphs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gnnkern.nn.aggregation import Aggregation
from gnnkern.nn.multi_aggregation import Aggr, aggregate, make_aggregation
from gnnkern.nn.rows import Rows

_SCALERS = ("identity", "amplification", "attenuation", "linear", "inverse_linear")


class DegreeScalerAggregation(Aggregation):
    """Each scaler's multiple of what the rows aggregate to, side by side.

    With d rows in a group, "amplification" is log(d + 1) / m and "attenuation" m / log(d + 1),
    where m is the mean of log(d + 1) in the training graphs; "linear" is d / n and
    "inverse_linear" n / d, where n is the mean of d; "identity" is 1. Empty groups are divided
    as if they had one row.

    Constructor and `state_dict` (`avg_deg_lin`, `avg_deg_log`) are those of PyG's aggregation.

    Args:
        aggr: A name, an aggregation, or a list of them.
        scaler: A scaler or a list of scalers.
        deg: [D + 1] how many nodes of the training graphs have 0 to D neighbours.
        train_norm: Whether the two means are parameters.
        aggr_kwargs: Arguments of an aggregation that is given by name.

    Source: Corso et al., "Principal neighbourhood aggregation for graph nets", 2020.
    """

    avg_deg_lin: Tensor
    avg_deg_log: Tensor

    def __init__(
        self,
        aggr: Aggr,
        scaler: str | Sequence[str],
        deg: Tensor,
        train_norm: bool = False,
        aggr_kwargs: Any = None,
    ) -> None:
        super().__init__()
        name = "DegreeScalerAggregation"
        if isinstance(aggr, list | tuple):
            self.aggr = make_aggregation(name, aggr, aggrs_kwargs=aggr_kwargs)
        else:
            self.aggr = make_aggregation(name, aggr, **(aggr_kwargs or {}))
        self.scaler = [scaler] if isinstance(scaler, str) else list(scaler)
        if not self.scaler or not set(self.scaler) <= set(_SCALERS):
            raise ValueError(
                f"{name}: scaler must be one or more of {', '.join(_SCALERS)}, got {scaler!r}"
            )
        count = deg.double()
        if count.dim() != 1 or not bool(count.sum() > 0):
            raise ValueError(
                f"{name}: deg must be a histogram [D + 1] of at least one node, got shape "
                f"{list(deg.shape)} with sum {float(count.sum())}"
            )
        degree = torch.arange(count.numel(), dtype=count.dtype, device=count.device)
        self.initial_lin = float((degree * count).sum() / count.sum())
        self.initial_log = float(((degree + 1).log() * count).sum() / count.sum())
        for key in ("avg_deg_lin", "avg_deg_log"):
            if train_norm:
                self.register_parameter(key, nn.Parameter(torch.empty(1)))
            else:
                self.register_buffer(key, torch.empty(1))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights of the aggregation again and set both means to those of `deg`."""
        super().reset_parameters()
        nn.init.constant_(self.avg_deg_lin, self.initial_lin)
        nn.init.constant_(self.avg_deg_log, self.initial_log)

    def scales(self, degree: Tensor, dtype: torch.dtype) -> Tensor:  # [N] -> [N, S]
        """Return the factor of each scaler for groups of these sizes."""
        degree = degree.to(dtype)
        lin, log = self.avg_deg_lin, self.avg_deg_log
        factors = []
        for scaler in self.scaler:
            if scaler == "identity":
                factors.append(torch.ones_like(degree))
            elif scaler == "amplification":
                factors.append((degree + 1).log() / log)
            elif scaler == "attenuation":
                factors.append(log / (degree.clamp(min=1) + 1).log())
            elif scaler == "linear":
                factors.append(degree / lin)
            else:
                factors.append(lin / degree.clamp(min=1))
        return torch.stack([factor.to(dtype) for factor in factors], 1)

    def aggregate(self, rows: Rows) -> Tensor:  # [N, ..., S * F]
        """Return the multiples."""
        out = aggregate(self.aggr, rows)  # [N, ..., F]
        scales = self.scales(rows.degree(), out.dtype)  # [N, S]
        shape = (-1, *[1] * (out.dim() - 1))
        return torch.cat([out * scale.view(shape) for scale in scales.unbind(1)], -1)
