"""The error that DGL raises, as a `ValueError`."""

__all__ = ["DGLError"]


class DGLError(ValueError):
    """A graph, a type, a field or an argument is not what a function needs.

    Models written for DGL raise it themselves, and catch it, under this name.
    """
