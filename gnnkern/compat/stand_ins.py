"""`install`: the stand-ins in `sys.modules` under the names that models import."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import warnings
from collections.abc import Iterable
from importlib.machinery import ModuleSpec
from types import ModuleType

import torch

__all__ = ["PACKAGES", "install", "uninstall"]

# Their modules that others import from, beside the package itself.
_MODULES = {
    "torch_scatter": ("scatter", "segment_coo", "segment_csr", "composite", "utils"),
    "torch_sparse": ("storage", "tensor"),
    "pyg_lib": ("ops", "sampler"),
}
PACKAGES = tuple(_MODULES)

# What defines the operators of a package, in a module of its own.
_OPERATORS = {"torch_sparse": "operators", "pyg_lib": "sampler"}
# Operators last as long as what defines them.
_defined: dict[str, torch.library.Library] = {}


def install(packages: Iterable[str] = PACKAGES) -> list[str]:
    """Make `import torch_scatter`, `torch_sparse` and `pyg_lib` find gnnkern's stand-ins.

    A package that is there stays as it is. Call this before torch_geometric is imported, which
    looks for them once; where it is late, a warning says so.

    Args:
        packages: Which of the three.

    Returns:
        The packages that have a stand-in now.

    Raises:
        ValueError: a name is none of the three.
    """
    packages = list(packages)
    for name in packages:
        if name not in _MODULES:
            raise ValueError(f"install: packages are {', '.join(PACKAGES)}, got {name!r}")
    absent = [name for name in packages if not _is_there(name)]
    if absent and "torch_geometric" in sys.modules:
        warnings.warn(
            f"gnnkern.compat.install: torch_geometric was imported before and goes on without "
            f"{', '.join(absent)}; install first, or use gnnkern.patch_pyg",
            stacklevel=2,
        )
    for name in absent:
        _register(name)
        if name in _OPERATORS and name not in _defined:
            module = importlib.import_module(f"gnnkern.compat.{name}.{_OPERATORS[name]}")
            _defined[name] = module.define()
    return [name for name in packages if _is_stand_in(name)]


def uninstall() -> None:
    """Forget the stand-ins; what was imported from them goes on working."""
    for package in PACKAGES:
        if _is_stand_in(package):
            for name in (package, *(f"{package}.{part}" for part in _MODULES[package])):
                sys.modules.pop(name, None)


def _is_stand_in(name: str) -> bool:
    return getattr(sys.modules.get(name), "__gnnkern__", False)


def _is_there(name: str) -> bool:
    if sys.modules.get(name) is not None:
        return True
    return importlib.util.find_spec(name) is not None


def _register(package: str) -> None:
    source = importlib.import_module(f"gnnkern.compat.{package}")
    stand_in = _copy(package, source, is_package=True)
    for part in _MODULES[package]:
        name = f"{package}.{part}"
        module = _copy(name, importlib.import_module(f"gnnkern.compat.{name}"), is_package=False)
        # A function may have the name of its module, and is what the package then shows.
        stand_in.__dict__.setdefault(part, module)
        if isinstance(stand_in.__dict__[part], ModuleType):
            stand_in.__dict__[part] = module


def _copy(name: str, source: ModuleType, is_package: bool) -> ModuleType:
    module = ModuleType(name, source.__doc__)
    module.__dict__.update({public: getattr(source, public) for public in source.__all__})
    module.__all__ = list(source.__all__)  # type: ignore[attr-defined]
    module.__file__ = source.__file__
    module.__spec__ = ModuleSpec(name, None, origin=source.__file__, is_package=is_package)
    if is_package:
        module.__path__ = []
        module.__version__ = source.__version__  # type: ignore[attr-defined]
    if hasattr(source, "__getattr__"):
        module.__getattr__ = source.__getattr__  # type: ignore[method-assign]
    module.__gnnkern__ = True  # type: ignore[attr-defined]
    sys.modules[name] = module
    return module
