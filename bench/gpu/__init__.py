"""Everything that needs a GPU, in one command: build, tests, sanitizers, benches, tables.

    python -m bench.gpu --out DIR [--budget 500]        `make gpu OUT=DIR BUDGET=500`

It needs a Python with torch for CUDA, Triton, pytest, and for the build nvcc, cmake, ninja and
pybind11; nothing is installed and nothing is fetched. The stages (`stages.py`) run as processes of
their own, the most important first, each with its share of what is left of the budget: a stage that
runs out is stopped and said to be, and one that crashes takes nothing with it. Every file is in DIR
as soon as it exists. `--device cpu` goes through the same stages at tiny sizes without a GPU, with
Triton's interpreter: a rehearsal.

| file in DIR | what |
|---|---|
| `summary.md`, `summary.json` | what ran, for how long, and how it ended; rewritten all the time |
| `machine.json` | versions, driver, GPU, commit, command |
| `logs/*.log` | what every process said |
| `<gpu>_<stage>_<graph>.json` | results, in the format of `gnnkern bench --json`, cell by cell |
| `<gpu>_<stage>_<graph>.md` | the same as tables, and as pictures in the folder of that name |
| `marks.md` | what is asked of the kernels, and what was measured of it |
| `profiles.md` | where the time of gnnkern's calls went, kernel by kernel |
| `tuning.md` | how long kernels take with other tiles than those that the rule chooses |

The exit code is 0 where everything ran and passed, 1 where something failed, 2 where there is no
GPU to begin with, 3 where nothing failed but something was stopped or could not run. `<gpu>` is the
name of the device, such as `h200`.
"""
