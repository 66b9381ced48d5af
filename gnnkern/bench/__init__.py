"""Measurements: every op beside its peers, checked against float64 before it is timed.

gnnkern bench --json out.json --report out     gnnkern and its peers in turns: tables, plots
"""
