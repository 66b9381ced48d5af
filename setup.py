"""Build the C++ module `gnnkern._C` with CMake; CMakeLists.txt lists the sources and flags."""

import os
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pybind11
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent


def program(name: str, folder: str) -> str:
    """The program of a Python package, or the one that the machine has."""
    try:
        return os.path.join(getattr(import_module(name), folder), name)
    except (ImportError, AttributeError):
        found = shutil.which(name)
        if found is None:
            raise SystemExit(f"gnnkern: the build needs {name}: pip install {name}") from None
        return found


class CMakeBuild(build_ext):
    def build_extension(self, ext: Extension) -> None:
        target = Path(self.get_ext_fullpath(ext.name)).resolve()
        build_dir = ROOT / "build" / f"cmake-{sys.implementation.cache_tag}"
        # The cache would pin tools of an earlier, deleted build environment; objects stay valid.
        (build_dir / "CMakeCache.txt").unlink(missing_ok=True)
        options = {
            "CMAKE_MAKE_PROGRAM": program("ninja", "BIN_DIR"),
            "CMAKE_LIBRARY_OUTPUT_DIRECTORY": target.parent,
            "Python_EXECUTABLE": sys.executable,
            "pybind11_DIR": pybind11.get_cmake_dir(),
            "GNNKERN_CUDA": os.environ.get("GNNKERN_CUDA", "auto"),
            "GNNKERN_ISAS": os.environ.get("GNNKERN_ISAS", ""),
        }
        defines = [f"-D{name}={value}" for name, value in options.items()]
        cmake = program("cmake", "CMAKE_BIN_DIR")
        jobs = str(os.cpu_count() or 1)
        subprocess.check_call([cmake, "-S", ROOT, "-B", build_dir, "-G", "Ninja", *defines])
        subprocess.check_call([cmake, "--build", build_dir, "--parallel", jobs])


setup(ext_modules=[Extension("gnnkern._C", [])], cmdclass={"build_ext": CMakeBuild})
