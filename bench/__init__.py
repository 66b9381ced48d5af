"""Measurements: every op beside its peers, checked before it is timed."""
