"""What modules of this package are: their weights can be drawn again."""

from torch import nn


class Layer(nn.Module):
    """A module whose `reset_parameters` reaches everything in it."""

    def reset_parameters(self) -> None:
        """Draw all weights again."""
        for child in self.children():
            reset_parameters_of(child)


def reset_parameters_of(module: nn.Module) -> None:
    """Draw the weights of a module again: its own way, or that of its children."""
    reset = getattr(module, "reset_parameters", None)
    if callable(reset):
        reset()
        return
    for child in module.children():
        reset_parameters_of(child)
