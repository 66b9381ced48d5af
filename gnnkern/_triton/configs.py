"""Launch configurations: a closed-form rule over sizes, and every number that it uses.

Provenance: none of these numbers has been measured on a device yet. They follow from what the tiles
need: of 128 threads each holds 16 sums (8 where a state has two parts, or in float64), so that 4 or
more loads of 16 bytes are under way from every thread. Their use of registers is known: the tests
compile them for sm_80, sm_90 and sm_100.

The rule chooses among few tiles, by width and average degree, and never looks at exact sizes, so
that mini-batches of different sizes share their compiled kernels.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

__all__ = [
    "Tiles",
    "chunk_edges",
    "configured",
    "dot_tiles_for",
    "every_dot_tiles",
    "every_tiles",
    "outer_rows",
    "tiles_for",
]


class Tiles(NamedTuple):
    """What a program of a kernel takes at a time."""

    rows: int  # rows walked side by side
    edges: int  # edges of each of them in one step
    columns: int  # columns of each edge
    outputs: int = 1  # where columns are summed in groups: groups, of `columns` each
    warps: int = 4


# Elements of a tile, of all its rows, edges and columns.
ELEMENTS = {
    "sum": 2048,
    "mul": 2048,
    "select": 1024,
    "softmax": 1024,
    "edges": 1024,
    "fold": 2048,
    "attention": 1024,
    "attention_backward": 1024,
    "attention_fold": 1024,
    "gatv2_backward": 512,
    "multi": 1024,
}
WARPS = 4

# Columns of a tile: wider rows are cut, and a tile of x stays in the L2 cache.
COLUMNS = (1, 4, 8, 16, 32, 64, 128)
# Likewise where a tile has to hold all columns of a head, as dot products do that are used at once:
# heads wider than the last are cut, and read once more for every tile. Doubles have one size less.
HEAD_COLUMNS = (8, 16, 32, 64, 128, 256, 512, 1024)
HOLDS_HEADS = ("attention", "attention_backward", "gatv2_backward")
# Families whose columns come in groups, several of which may be in a tile.
GROUPED = ("edges", "attention_fold", *HOLDS_HEADS)
# What walking the edges once more for another tile costs, in columns.
TILE_COLUMNS = 16

# Edges of a row in one step, by the average degree up to which it holds.
EDGES = ((4.0, 2), (16.0, 8), (float("inf"), 32))
# Edges of a tile, of all its rows: each takes registers for its 64-bit addresses, even where it has
# few columns.
LANES = {
    "sum": 512,
    "mul": 512,
    "select": 512,
    "softmax": 512,
    "edges": 256,
    "fold": 512,
    "attention": 256,
    "attention_backward": 128,
    "attention_fold": 256,
    "gatv2_backward": 128,
    "multi": 256,
}
# A program's rows: below, threads would stand idle; above, the longest of them delays the others.
MAX_ROWS = 64

# Edges of a chunk, likewise. Folding then moves 1/64 or less of what the long rows read, and a
# packed row is walked in a few steps.
CHUNK_EDGES = ((16.0, 64), (float("inf"), 256))

# Products of dense tiles: `rows` x `edges` times `edges` x `columns`, at least 16 each, as tensor
# cores take them. A thread holds 16 sums: the largest tiles, of 4096, are those of 8 warps.
DOTS = ("matmul", "outer")
DOT_SIDES = (16, 32, 64)
DOT_INNER = (16, 32)
DOT_SUMS = 16
# Rows whose outer products one program sums: so few that so many programs have work, within limits
# between which a program neither waits for its launch nor delays the others.
OUTER_PROGRAMS = 256
OUTER_ROWS = (128, 1024)


def _by_degree(table: tuple[tuple[float, int], ...], degree: float) -> int:
    return next(value for limit, value in table if degree < limit or limit == float("inf"))


def chunk_edges(num_rows: int, num_edges: int) -> int:
    """T: the longest row that is walked whole."""
    if _forced_chunk_edges is not None:
        return _forced_chunk_edges
    return _by_degree(CHUNK_EDGES, num_edges / max(num_rows, 1))


def _block(width: int, blocks: tuple[int, ...]) -> int:
    """The block that a width is cut into with the least waste."""
    return min(blocks, key=lambda block: (-(-width // block) * (block + TILE_COLUMNS), -block))


def tiles_for(
    kernel: str,
    width: int,
    degree: float,
    is_double: bool,
    outputs: int = 1,
    edges_at_once: int = 0,
) -> Tiles:
    """The tiles of a kernel.

    Args:
        kernel: A key of `ELEMENTS`.
        width: Columns of an edge; where these are summed in groups, of a group.
        degree: Average number of edges in a row.
        is_double: Whether sums are held in float64.
        outputs: Groups of columns.
        edges_at_once: Edges of a row in one step, where the degree does not say it.
    """
    if kernel in _forced_tiles:
        return _forced_tiles[kernel]
    elements = ELEMENTS[kernel] // (2 if is_double else 1)
    if kernel in HOLDS_HEADS:
        blocks_that_fit = HEAD_COLUMNS[:-1] if is_double else HEAD_COLUMNS
        # A head is cut into tiles of less than the widest: their loops take registers, too.
        columns = next((b for b in blocks_that_fit if b >= width), blocks_that_fit[-2])
    else:
        columns = _block(width, COLUMNS)
    blocks = 1
    while blocks < outputs and blocks * columns < COLUMNS[-1]:
        blocks *= 2
    lanes = min(max(elements // (columns * blocks), 1), LANES[kernel])
    edges = min(edges_at_once or _by_degree(EDGES, degree), lanes)
    rows = min(lanes // edges, MAX_ROWS)
    return Tiles(rows, edges, columns, blocks, WARPS)


def every_tiles(kernel: str, is_double: bool) -> list[Tiles]:
    """All tiles that the rule may choose for a kernel."""
    found = {
        tiles_for(kernel, width, degree, is_double, outputs)
        for width in (HEAD_COLUMNS if kernel in HOLDS_HEADS else COLUMNS)
        for degree in (1.0, 8.0, 64.0)
        # A group of one column is no sum.
        for outputs in ((1, 4, 128) if kernel in GROUPED and width > 1 else (1,))
    }
    return sorted(found)


def dot_tiles_for(kernel: str, rows: int, inner: int, columns: int, is_double: bool) -> Tiles:
    """The tiles of products of dense tiles.

    Args:
        kernel: One of `DOTS`.
        rows: Rows of a product: of an average segment, where a segment has its own.
        inner: How long its sums are.
        columns: Columns of it.
        is_double: Whether sums are held in float64.
    """
    if kernel in _forced_tiles:
        return _forced_tiles[kernel]
    sides = DOT_SIDES[:2] if is_double else DOT_SIDES
    lengths = DOT_INNER[:1] if is_double else DOT_INNER
    sums = _block(rows, sides) * _block(columns, sides)
    warps = max(WARPS, sums // (32 * DOT_SUMS))
    return Tiles(_block(rows, sides), _block(inner, lengths), _block(columns, sides), warps=warps)


def every_dot_tiles(kernel: str, is_double: bool) -> list[Tiles]:
    """All tiles that the rule may choose for a kernel of products."""
    found = {
        dot_tiles_for(kernel, rows, inner, columns, is_double)
        for rows in DOT_SIDES
        for inner in DOT_INNER
        for columns in DOT_SIDES
    }
    return sorted(found)


def outer_rows(num_rows: int, width: int, out_width: int) -> int:
    """How many rows' outer products [width, out_width] are summed before they are folded.

    So many that the partial sums are not much larger than the rows.
    """
    if _forced_chunk_edges is not None:
        return _forced_chunk_edges
    least, most = OUTER_ROWS
    rows = least
    while rows < most and rows * OUTER_PROGRAMS < num_rows:
        rows *= 2
    return max(rows, 4 * width * out_width // (width + out_width))


_forced_tiles: dict[str, Tiles] = {}
_forced_chunk_edges: int | None = None


@contextmanager
def configured(chunk_edges: int | None = None, **tiles: Tiles) -> Iterator[None]:
    """Inside the block these configurations hold, in place of what the rule says.

    For tuners and tests. Plans that graphs hold already keep the chunks that they were made with.

    Args:
        chunk_edges: T of plans made inside the block.
        **tiles: By kernel, a key of `ELEMENTS` or one of `DOTS`.
    """
    global _forced_tiles, _forced_chunk_edges
    known = {*ELEMENTS, *DOTS}
    if set(tiles) - known:
        unknown = set(tiles) - known
        raise ValueError(f"configured: expected kernels of {sorted(known)}, got {unknown}")
    before = _forced_tiles, _forced_chunk_edges
    _forced_tiles = {**_forced_tiles, **tiles}
    if chunk_edges is not None:
        _forced_chunk_edges = chunk_edges
    try:
        yield
    finally:
        _forced_tiles, _forced_chunk_edges = before
