"""Measurements: every op beside its peers, checked against float64 before it is timed.

pytest bench --benchmark-disable            every case once, on a tiny graph: what CI runs
pytest bench/bench_spmm.py --bench-graph powerlaw_1m
python -m bench.table --json table.json     gnnkern and all peers in turns, one table
"""
