"""Tiles of attention, [ROWS, EDGES, HEADS, BLOCK_D]: which cells they hold, and reading them."""

from __future__ import annotations

from typing import no_type_check

import triton
import triton.language as tl

__all__ = [
    "cells_of",
    "edges_at",
    "leaky",
    "load_heads",
    "load_rows",
    "row_products",
    "tile_at",
]


@triton.jit
@no_type_check
def leaky(value, slope):
    """The leaky ReLU."""
    return tl.where(value > 0, value, value * slope)


@triton.jit
@no_type_check
def tile_at(head_width, HEADS: tl.constexpr, BLOCK_D: tl.constexpr):
    """The heads [HEADS] of a program's tile, and its first column in each of them."""
    tiles_per_head = tl.cdiv(head_width, BLOCK_D)
    tile = tl.program_id(1)
    head = tile // tiles_per_head * HEADS + tl.arange(0, HEADS)
    return head, tile % tiles_per_head * BLOCK_D


@triton.jit
@no_type_check
def cells_of(head, column_begin, heads, head_width, BLOCK_D: tl.constexpr):
    """Where in a row the cells of a tile lie, and which of them exist, both [HEADS, BLOCK_D]."""
    column = column_begin + tl.arange(0, BLOCK_D)
    cell = head[:, None] * head_width + column[None, :]
    return cell, (head < heads)[:, None] & (column < head_width)[None, :]


@triton.jit
@no_type_check
def edges_at(
    begin,  # [ROWS]
    end,  # [ROWS]
    done,
    indices_ptr,  # [E]
    edge_id_ptr,  # [E] or None
    EDGES: tl.constexpr,
):
    """Whether lanes have a next edge, its other end and its number, all [ROWS, EDGES]."""
    position = begin[:, None] + (done + tl.arange(0, EDGES))[None, :]
    in_row = position < end[:, None]
    source = tl.load(indices_ptr + position, mask=in_row, other=0).to(tl.int64)
    edge = position
    if edge_id_ptr is not None:
        edge = tl.load(edge_id_ptr + position, mask=in_row, other=0).to(tl.int64)
    return in_row, source, edge


@triton.jit
@no_type_check
def load_rows(
    x_ptr,  # [rows, width]
    row,  # [ROWS, EDGES], or [ROWS, 1]
    valid,  # likewise
    cell,  # [HEADS, BLOCK_D]
    in_cells,  # [HEADS, BLOCK_D]
    width,
    ACC: tl.constexpr,
):
    """[ROWS, EDGES, HEADS, BLOCK_D]: the cells of rows; 0 where there is none."""
    offset = row[:, :, None, None] * width + cell[None, None, :, :]
    mask = valid[:, :, None, None] & in_cells[None, None, :, :]
    return tl.load(x_ptr + offset, mask=mask, other=0).to(ACC)


@triton.jit
@no_type_check
def load_heads(
    x_ptr,  # [rows, heads]
    row,  # [ROWS, EDGES], or [ROWS, 1]
    valid,  # likewise
    head,  # [HEADS]
    heads,
    ACC: tl.constexpr,
):
    """[ROWS, EDGES, HEADS]: one number for each head; 0 where there is none."""
    offset = row[:, :, None] * heads + head[None, None, :]
    mask = valid[:, :, None] & (head < heads)[None, None, :]
    return tl.load(x_ptr + offset, mask=mask, other=0).to(ACC)


@triton.jit
@no_type_check
def row_products(
    lhs_ptr,  # [rows, heads, head_width]
    lhs_row,  # [ROWS, EDGES], or [ROWS, 1]
    lhs_valid,  # likewise
    rhs_ptr,  # [rows, heads, head_width]
    rhs_row,
    rhs_valid,
    edge_x_ptr,  # [E, heads, head_width] or None
    edge,  # [ROWS, EDGES]
    in_row,  # [ROWS, EDGES]
    att_ptr,  # gatv2: [heads, head_width]
    slope,  # gatv2: [1, 1, 1]
    head,  # [HEADS]
    heads,
    head_width,
    KIND: tl.constexpr,
    ACC: tl.constexpr,
    ROWS: tl.constexpr,
    EDGES: tl.constexpr,
    HEADS: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """[ROWS, EDGES, HEADS]: of heads wider than a tile, sums over all of their columns.

    They are <lhs + edge_x, rhs>; of "gatv2" <att, leaky(lhs + rhs + edge_x)>.
    """
    total = tl.zeros([ROWS, EDGES, HEADS], ACC)
    for column_begin in range(0, head_width, BLOCK_D):
        cell, in_cells = cells_of(head, column_begin, heads, head_width, BLOCK_D)
        width = heads * head_width
        lhs = load_rows(lhs_ptr, lhs_row, lhs_valid, cell, in_cells, width, ACC)
        rhs = load_rows(rhs_ptr, rhs_row, rhs_valid, cell, in_cells, width, ACC)
        if edge_x_ptr is not None:
            lhs = lhs + load_rows(edge_x_ptr, edge, in_row, cell, in_cells, width, ACC)
        if KIND == "gatv2":
            att = tl.load(att_ptr + cell, mask=in_cells, other=0).to(ACC)[None, None, :, :]
            product = leaky(lhs + rhs, slope[:, :, :, None]) * att
        else:
            product = lhs * rhs
        total += tl.sum(product, 3)
    return total
