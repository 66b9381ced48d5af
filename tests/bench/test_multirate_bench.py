"""The bench of propagation with few exchanges: orders and table."""

import pytest

from bench.multirate import PREDICTORS, orders, table


def test_orders_and_table():
    rows = [
        {"steps": round(16 / step), "step": step, "euler": step / 10}
        | {
            predictor: {"error": step**power, "largest": 1.0, "bound": 2.0, "exchanges": 8}
            for power, predictor in enumerate(PREDICTORS, 1)
        }
        for step in (0.2, 0.1, 0.05)
    ]
    assert orders(rows, "hold") == pytest.approx([1.0, 1.0])
    assert orders(rows, "linear") == pytest.approx([2.0, 2.0])
    lines = table([{"graph": "ring", "rows": rows}])
    assert len(lines) == 2 + 2 * len(rows)
    assert lines[-1] == "| ring | 0.05 | 5.0e-03 | - | linear | 8 | 2.5e-03 | 1.0e+00 | 2.0e+00 |"
