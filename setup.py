"""Build the C++ module `gnnkern._C` with CMake; CMakeLists.txt lists the sources and flags."""

import os
import subprocess
import sys
from pathlib import Path

import cmake
import ninja
import pybind11
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent


class CMakeBuild(build_ext):
    def build_extension(self, ext: Extension) -> None:
        target = Path(self.get_ext_fullpath(ext.name)).resolve()
        build_dir = ROOT / "build" / f"cmake-{sys.implementation.cache_tag}"
        # The cache would pin tools of an earlier, deleted build environment; objects stay valid.
        (build_dir / "CMakeCache.txt").unlink(missing_ok=True)
        options = {
            "CMAKE_MAKE_PROGRAM": Path(ninja.BIN_DIR, "ninja"),
            "CMAKE_LIBRARY_OUTPUT_DIRECTORY": target.parent,
            "Python_EXECUTABLE": sys.executable,
            "pybind11_DIR": pybind11.get_cmake_dir(),
            "GNNKERN_CUDA": os.environ.get("GNNKERN_CUDA", "auto"),
            "GNNKERN_ISAS": os.environ.get("GNNKERN_ISAS", ""),
        }
        defines = [f"-D{name}={value}" for name, value in options.items()]
        program = os.path.join(cmake.CMAKE_BIN_DIR, "cmake")
        jobs = str(os.cpu_count() or 1)
        subprocess.check_call([program, "-S", ROOT, "-B", build_dir, "-G", "Ninja", *defines])
        subprocess.check_call([program, "--build", build_dir, "--parallel", jobs])


setup(ext_modules=[Extension("gnnkern._C", [])], cmdclass={"build_ext": CMakeBuild})
