"""The meaning of every op in a few lines of plain torch: run in float64, it is the law."""
