"""The benches of every kernel under pytest-benchmark; what they measure with is `gnnkern.bench`.

pytest bench --benchmark-disable            every case once, on a tiny graph: what CI runs
pytest bench/bench_spmm.py --bench-graph powerlaw_1m
"""
