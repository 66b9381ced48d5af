"""`accelerate`: gnnkern's kernels for one PyG model, and no other."""

from __future__ import annotations

from typing import Any

import torch

from gnnkern.integrations.pyg import patching, scope

__all__ = ["accelerate", "decelerate"]


def accelerate(model: torch.nn.Module) -> torch.nn.Module:
    """Run one PyG model on gnnkern's kernels, as `patch_pyg("fuse")` runs all.

    The model itself gets two hooks, around its `forward`, and keeps its layers, parameters and
    `state_dict`. Copies of it, and what `torch.save` made of it, are accelerated too where gnnkern
    and PyG are there. TorchScript does not compile hooks: call `decelerate` first.

    Args:
        model: A module, of which PyG's layers are parts.

    Returns:
        The model.

    Raises:
        TypeError: it is no module.
        ImportError: torch_geometric is not installed.
    """
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"accelerate: model must be a torch.nn.Module, got {type(model).__name__}")
    patching.ensure_patched()
    decelerate(model)
    model.register_forward_pre_hook(_begin, prepend=True)
    model.register_forward_hook(_end, always_call=True)
    return model


def decelerate(model: torch.nn.Module) -> torch.nn.Module:
    """Take back what `accelerate` did to a model; returns it."""
    for hooks, hook in ((model._forward_pre_hooks, _begin), (model._forward_hooks, _end)):
        for key in [key for key, function in hooks.items() if function is hook]:
            del hooks[key]
            model._forward_hooks_always_called.pop(key, None)
    return model


def _begin(model: torch.nn.Module, inputs: Any) -> None:
    if not torch.compiler.is_compiling():
        patching.ensure_patched()
        scope.enter()


def _end(model: torch.nn.Module, inputs: Any, output: Any) -> None:
    if not torch.compiler.is_compiling():
        scope.leave()


# They look at nothing, so that a layer alone may have them and be fused.
_begin.is_blind = _end.is_blind = True  # type: ignore[attr-defined]
