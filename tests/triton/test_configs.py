"""The rule that chooses tiles, and what takes its place."""

import pytest
from helpers.devices import small_tiles

from gnnkern._triton import configs
from gnnkern._triton.configs import Tiles, configured, every_tiles, tiles_for

WIDTHS = (1, 2, 3, 7, 8, 31, 33, 64, 100, 129, 500, 602, 1024)
DEGREES = (0.0, 1.0, 3.9, 4.0, 15.9, 50.0, 600.0)


@pytest.fixture(autouse=True)
def _no_small_tiles(monkeypatch):
    monkeypatch.setattr(configs, "_forced_tiles", {})
    monkeypatch.setattr(configs, "_forced_chunk_edges", None)


def is_power_of_two(number):
    return number > 0 and number & (number - 1) == 0


@pytest.mark.parametrize("kernel", configs.ELEMENTS)
@pytest.mark.parametrize("is_double", [False, True])
def test_tiles_are_few_and_no_larger_than_the_table_says(kernel, is_double):
    known = every_tiles(kernel, is_double)
    for width in WIDTHS:
        for degree in DEGREES:
            for outputs in (1, 2, 8, 200) if kernel in configs.GROUPED else (1,):
                tiles = tiles_for(kernel, width, degree, is_double, outputs)
                assert all(map(is_power_of_two, tiles))
                size = tiles.rows * tiles.edges * tiles.columns * tiles.outputs
                assert size <= max(
                    configs.ELEMENTS[kernel] // (2 if is_double else 1), tiles.columns
                )
                assert tiles.outputs == 1 or tiles.outputs < 2 * outputs
                if outputs == 1:
                    assert tiles in known


def test_columns_waste_little():
    assert [tiles_for("sum", width, 8.0, False).columns for width in (1, 3, 64, 100, 129, 500)] == [
        1,
        4,
        64,
        128,
        64,
        128,
    ]


@pytest.mark.parametrize("kernel", configs.DOTS)
@pytest.mark.parametrize("is_double", [False, True])
def test_tiles_of_products_are_few(kernel, is_double):
    known = configs.every_dot_tiles(kernel, is_double)
    for rows in (0, *WIDTHS):
        for columns in WIDTHS:
            for inner in (0, *WIDTHS):
                tiles = configs.dot_tiles_for(kernel, rows, inner, columns, is_double)
                assert tiles in known
                assert min(tiles[:3]) >= 16
                assert tiles.rows * tiles.columns <= (1024 if is_double else 4096)


def test_outer_products_are_summed_over_more_rows_where_they_are_large():
    assert configs.outer_rows(1_000, 16, 16) == 128
    assert configs.outer_rows(10_000_000, 16, 16) == 1024
    assert configs.outer_rows(1_000, 1024, 1024) == 2048


def test_short_rows_are_packed_and_long_ones_are_not():
    assert tiles_for("sum", 64, 2.0, False) == Tiles(rows=16, edges=2, columns=64)
    assert tiles_for("sum", 64, 50.0, False) == Tiles(rows=1, edges=32, columns=64)


def test_tiles_of_attention_hold_whole_heads():
    tiles = [tiles_for("attention", width, 50.0, False, 4) for width in (1, 8, 60, 100, 602, 2000)]
    assert [tile.columns for tile in tiles] == [8, 8, 64, 128, 1024, 512]
    assert [tile.outputs for tile in tiles] == [4, 4, 2, 1, 1, 1]
    assert tiles_for("gatv2_backward", 1024, 50.0, False) == Tiles(rows=1, edges=1, columns=1024)
    assert tiles_for("gatv2_backward", 512, 50.0, True).columns == 512


def test_explicit_configurations_hold_inside_their_block():
    tiles = Tiles(rows=1, edges=2, columns=4)
    with configured(chunk_edges=7, sum=tiles):
        assert tiles_for("sum", 64, 50.0, False) == tiles
        assert tiles_for("select", 64, 50.0, False) != tiles
        assert configs.chunk_edges(10, 100) == 7
        with small_tiles():
            assert configs.chunk_edges(10, 100) == 16
        assert tiles_for("sum", 64, 50.0, False) == tiles
    assert configs.chunk_edges(10, 100) == 64
    with pytest.raises(ValueError, match="expected kernels of"), configured(product=tiles):
        pass
