"""Measurements: every op beside its peers, checked against float64 before it is timed.

python -m gnnkern.bench.table --json table.json     gnnkern and all peers in turns, one table
"""
