# make demo    on a fresh machine: environment, build, train on real graphs, a table of results
# make test    on a fresh clone: environment, build, lint, tests, every bench once
# make help    the other targets

PYTHON ?= python3
VENV ?= .venv
# Arguments of pip for torch alone, for example --index-url https://download.pytorch.org/whl/cpu
TORCH_PIP_ARGS ?=
# Files of `make demo`: DATA="cora.npz tolokers.npz"
DATA ?=
# Further arguments of pytest, for `make test`, `make sanitize` and `make bench`
PYTEST_ARGS ?=
# Processes that share the tests: most of a test is Python, on one core
PYTEST_WORKERS ?= 2
# Further arguments of pytest for the tests that run in Triton's interpreter
PYTEST_TRITON_ARGS ?=
# What `make cuda` compiles for; `make cuda-all`: for all architectures, and PTX
CUDA_ARCHITECTURES ?= 90-real
# Of `make gpu`: the folder of its files, its seconds, and further arguments of bench.gpu
OUT ?= build/gpu
BUDGET ?= 500
GPU_ARGS ?=

# Thread pools of torch, MKL and gnnkern: one measure for every machine.
export OMP_NUM_THREADS ?= 2
export MKL_NUM_THREADS ?= 2
export PIP_DISABLE_PIP_VERSION_CHECK = 1
# CUDA's kernels are in the build where they can run; `make cuda` compiles them anywhere.
export GNNKERN_CUDA ?= $(if $(wildcard /dev/nvidia0),auto,off)

BIN := $(VENV)/bin
PY := $(BIN)/python
PIP := $(PY) -m pip --quiet
PIP_INSTALL := $(PIP) install --constraint constraints.txt
# Threads that wait must not spin: the other process needs the core (a run takes twice as long).
PYTEST = OMP_WAIT_POLICY=passive $(abspath $(PY)) -m pytest -q \
  --numprocesses $(PYTEST_WORKERS) --dist worksteal
TORCH := $(shell sed -n 's/^\(torch==[^ ;]*\).*/\1/p' constraints.txt)

NATIVE_SOURCES := $(shell find csrc -name '*.cpp' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh')
# The host executor of the tests.
HOST_SOURCES := $(shell find tests/cuda_host -type f)
BUILD_INPUTS := CMakeLists.txt setup.py pyproject.toml $(NATIVE_SOURCES)
CMAKE_SETUP = $(BIN)/cmake -S . -G Ninja -DCMAKE_MAKE_PROGRAM="$(abspath $(BIN)/ninja)" \
  -DPython_EXECUTABLE="$(abspath $(PY))" -Dpybind11_DIR="$$($(PY) -m pybind11 --cmakedir)"
# Stamps: a step is repeated when one of the files it reads has changed.
TOOLS := $(VENV)/tools.stamp
BUILT := $(VENV)/built.stamp
INSTALLED := $(VENV)/installed.stamp
DEV := $(VENV)/dev.stamp
CUDA_HOST := build/cuda_host/built.stamp

.DELETE_ON_ERROR:
.PHONY: help venv build demo test lint format stubs stubs-check pytest pytest-triton cuda cuda-all cuda-host \
  bench bench-once sanitize sanitize-cuda gpu clean

help:
	@echo "make demo [DATA='a.npz b.npz']   train a GCN and a GAT, compare with plain torch"
	@echo "make test [PYTEST_ARGS=...]      lint, tests, every bench once: what CI runs"
	@echo "make venv | build                the environment alone | the native module alone"
	@echo "make lint | format | stubs       check the style | apply it | regenerate _C.pyi"
	@echo "make sanitize [SANITIZE_SHORT=1] op tests under AddressSanitizer and UBSan"
	@echo "make cuda | cuda-all | cuda-host CUDA kernels for sm_90, no spills | for all | for the tests"
	@echo "make sanitize-cuda               the CUDA kernels on the host executor, under them too"
	@echo "make bench [PYTEST_ARGS=...]     measure every kernel"
	@echo "make gpu [OUT=DIR BUDGET=500]    on a machine with a GPU: build, tests, benches, tables"
	@echo "make clean                       remove everything that make made"

# ------------------------------------------------------------------------------ environment
# torch first and exactly: nothing installed later can then replace it.
$(TOOLS): constraints.txt
	@echo "environment: $(VENV) with $(TORCH)"
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PIP_INSTALL) $(TORCH_PIP_ARGS) "$(TORCH)"
	$(PIP_INSTALL) setuptools pybind11 cmake ninja
	touch $@

$(BUILT): $(TOOLS) $(BUILD_INPUTS)
	$(PY) setup.py --quiet build_ext --inplace
	touch $@

# Without isolation: the pinned build tools of the environment, and the objects just compiled.
$(INSTALLED): $(TOOLS) pyproject.toml setup.py | $(BUILT)
	$(PIP_INSTALL) --no-build-isolation --editable '.[data,plot]'
	touch $@

$(DEV): $(INSTALLED)
	$(PIP_INSTALL) --no-build-isolation --editable '.[data,plot,test,dev,triton]'
	touch $@

venv: $(DEV)

build: $(BUILT)

# --------------------------------------------------------------------------------- the jobs
demo: $(INSTALLED) $(BUILT)
	$(PY) -m gnnkern demo $(if $(DATA),--data $(DATA))

test: $(DEV) $(BUILT)
	$(MAKE) --no-print-directory lint
	$(MAKE) --no-print-directory stubs-check
	$(MAKE) --no-print-directory pytest
	$(MAKE) --no-print-directory pytest-triton
	$(MAKE) --no-print-directory bench-once

lint: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run -Werror $(NATIVE_SOURCES) $(HOST_SOURCES)

format: $(DEV)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(NATIVE_SOURCES) $(HOST_SOURCES)

stubs: $(DEV) $(BUILT)
	$(BIN)/pybind11-stubgen gnnkern._C --exit-code --output-dir build/stubs
	cp build/stubs/gnnkern/_C.pyi gnnkern/_C.pyi

stubs-check: $(DEV) $(BUILT)
	@$(BIN)/pybind11-stubgen gnnkern._C --exit-code --output-dir build/stubs
	@diff -u gnnkern/_C.pyi build/stubs/gnnkern/_C.pyi \
	  || { echo "gnnkern/_C.pyi is out of date: run make stubs" >&2; exit 1; }

# The CUDA kernels as C++, on the host executor of the tests.
$(CUDA_HOST): $(TOOLS) $(BUILD_INPUTS) $(HOST_SOURCES)
	$(CMAKE_SETUP) -B $(@D) -DGNNKERN_CUDA_HOST=on > /dev/null
	$(BIN)/cmake --build $(@D) --target _cuda_host
	touch $@

cuda-host: $(CUDA_HOST)

# Compiles every CUDA kernel; no GPU is needed. Fails where a kernel spills registers.
cuda: $(TOOLS)
	$(CMAKE_SETUP) -B build/cuda -DGNNKERN_CUDA=on \
	  '-DGNNKERN_CUDA_ARCHITECTURES=$(CUDA_ARCHITECTURES)' > /dev/null
	$(BIN)/cmake --build build/cuda --target _C_cuda
	$(PY) -m bench.cuda_resources build/cuda

cuda-all: CUDA_ARCHITECTURES = 80-real;90-real;100-real;100-virtual
cuda-all: cuda

pytest: $(DEV) $(BUILT) $(CUDA_HOST)
	$(PYTEST) $(PYTEST_ARGS)

# Triton reads the variable when a kernel is defined: a process of its own. What torch asks of
# operators, and numerical derivatives, are the same for every backend: CUDA's on the host executor,
# which is faster, stand for both.
pytest-triton: $(DEV) $(BUILT)
	TRITON_INTERPRET=1 $(PYTEST) tests/triton tests/device -k 'not cuda and not test_operators and not gradcheck' $(PYTEST_TRITON_ARGS)

bench-once: $(DEV) $(BUILT)
	$(PYTEST) bench --benchmark-disable

bench: $(DEV) $(BUILT)
	$(PY) -m pytest bench $(PYTEST_ARGS)

# With the Python that is there: nothing is installed, and nothing is fetched.
gpu:
	$(PYTHON) -m bench.gpu --out $(OUT) --budget $(BUDGET) $(GPU_ARGS)

# -------------------------------------------------------------------------------- sanitizers
# A copy of the package with a sanitized `_C`; pytest runs beside it, so that no other copy of
# gnnkern is found first. Leaks are not looked for: the interpreter keeps memory until it ends.
# --capture=sys leaves the sanitizers' own report on the terminal.
SANITIZED := build/sanitize
SANITIZE_TESTS ?= $(wildcard tests/ops tests/test_graph.py)
SANITIZE_SELECT := not reference and not compile
ifdef SANITIZE_SHORT
SANITIZE_SELECT += and (every_width or long_rows or test_graph)
endif

UNDER_SANITIZERS = \
  export LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libstdc++.so)" && \
  export ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 PYTHONPATH="$$PWD"

sanitize: $(DEV)
	$(CMAKE_SETUP) -B $(SANITIZED)/cmake -DGNNKERN_CUDA=off \
	  '-DGNNKERN_SANITIZE=address;undefined' > /dev/null
	$(BIN)/cmake --build $(SANITIZED)/cmake
	rm -rf $(SANITIZED)/run && mkdir $(SANITIZED)/run
	cp -r gnnkern tests pyproject.toml $(SANITIZED)/run
	rm -f $(SANITIZED)/run/gnnkern/_C*.so
	cp $(SANITIZED)/cmake/_C*.so $(SANITIZED)/run/gnnkern
	cd $(SANITIZED)/run && $(UNDER_SANITIZERS) && \
	  $(abspath $(PY)) -c "import gnnkern._C as c; assert '/$(SANITIZED)/run/' in c.__file__, c.__file__" && \
	  $(PYTEST) -p no:cacheprovider --capture=sys -k '$(SANITIZE_SELECT)' \
	    $(PYTEST_ARGS) $(SANITIZE_TESTS)

# The CUDA kernels on the host executor: what they read and write beyond a tensor, or not aligned.
sanitize-cuda: $(DEV) $(BUILT)
	$(CMAKE_SETUP) -B $(SANITIZED)/cuda_host -DGNNKERN_CUDA_HOST=on \
	  '-DGNNKERN_SANITIZE=address;undefined' > /dev/null
	$(BIN)/cmake --build $(SANITIZED)/cuda_host --target _cuda_host
	rm -rf $(SANITIZED)/host && mkdir -p $(SANITIZED)/host/build/cuda_host
	cp -r bench gnnkern tests pyproject.toml $(SANITIZED)/host
	cp $(SANITIZED)/cuda_host/_cuda_host*.so $(SANITIZED)/host/build/cuda_host
	cd $(SANITIZED)/host && $(UNDER_SANITIZERS) && \
	  $(PYTEST) -p no:cacheprovider --capture=sys -k 'not triton and not compile' \
	    $(PYTEST_ARGS) tests/device tests/cuda

clean:
	rm -rf $(VENV) build dist gnnkern.egg-info gnnkern/_C*.so
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .benchmarks
	find $(wildcard gnnkern tests bench) -name __pycache__ -prune -exec rm -rf {} +
