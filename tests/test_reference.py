"""The references against mathematics on dense matrices: whoever is compared with must be right."""

import pytest
import torch
from helpers.cases import normal
from helpers.graphs import GRAPHS, graph

from gnnkern.reference.dot_attention import dot_attention_reference
from gnnkern.reference.edge_softmax import edge_softmax_reference
from gnnkern.reference.gat_attention import gat_attention_reference
from gnnkern.reference.gather_matmul import gather_matmul_reference
from gnnkern.reference.gatv2_attention import gatv2_attention_reference
from gnnkern.reference.philox import dropout_keep_mask, dropout_threshold, philox_words
from gnnkern.reference.scatter_logsumexp import scatter_logsumexp_reference
from gnnkern.reference.scatter_reduce import scatter_reduce_reference
from gnnkern.reference.scatter_std import scatter_std_reference
from gnnkern.reference.sddmm import sddmm_reference
from gnnkern.reference.segment_gather import segment_gather_reference
from gnnkern.reference.segment_logsumexp import segment_logsumexp_reference
from gnnkern.reference.segment_matmul import segment_matmul_reference
from gnnkern.reference.segment_reduce import segment_reduce_reference
from gnnkern.reference.segment_softmax import segment_softmax_reference
from gnnkern.reference.spmm import spmm_reference

each_graph = pytest.mark.parametrize("name", [name for name in GRAPHS if name != "long_rows"])


def edges_into(g, node):
    return [e for e, v in enumerate(g.edge_index[1].tolist()) if v == node]


def dense(g, weight):  # [num_dst, num_src]
    matrix = torch.zeros(g.num_dst, g.num_src, dtype=weight.dtype)
    for (u, v), w in zip(g.edge_index.t().tolist(), weight, strict=True):
        matrix[v, u] += w
    return matrix


@each_graph
def test_spmm_is_a_matrix_product(name):
    g = graph(name)
    x, weight = normal(g.num_src, 5), normal(g.num_edges)
    out = spmm_reference(g, x, weight, "sum")
    torch.testing.assert_close(out, dense(g, weight) @ x)
    degree = torch.bincount(g.edge_index[1], minlength=g.num_dst).clamp(min=1)
    mean = spmm_reference(g, x, weight, "mean")
    torch.testing.assert_close(mean, dense(g, weight) @ x / degree[:, None])


@each_graph
@pytest.mark.parametrize("reduce", ["sum", "mean", "max", "min"])
def test_spmm_node_by_node_and_head_by_head(name, reduce):
    g = graph(name)
    x, weight = normal(g.num_src, 2, 3), normal(g.num_edges, 2)
    out = spmm_reference(g, x, weight, reduce)
    torch_reduce = {"sum": torch.sum, "mean": torch.mean, "max": torch.amax, "min": torch.amin}
    for node in range(g.num_dst):
        edges = edges_into(g, node)
        message = x[g.edge_index[0, edges]] * weight[edges, :, None]
        expected = torch_reduce[reduce](message, dim=0) if edges else torch.zeros_like(out[node])
        torch.testing.assert_close(out[node], expected)


@each_graph
def test_sddmm_edge_by_edge(name):
    g = graph(name)
    x_dst, x_src = normal(g.num_dst, 2, 3), normal(g.num_src, 2, 3)
    functions = {
        "dot": lambda a, b: (a * b).sum(-1),
        "add": torch.add,
        "sub": torch.sub,
        "mul": torch.mul,
        "div": torch.div,
    }
    for op, function in functions.items():
        out = sddmm_reference(g, x_dst, x_src, op)
        assert out.shape == ((g.num_edges, 2) if op == "dot" else (g.num_edges, 2, 3))
        for e, (u, v) in enumerate(g.edge_index.t().tolist()):
            torch.testing.assert_close(out[e], function(x_dst[v], x_src[u]))


@each_graph
@pytest.mark.parametrize("lhs_at", ["dst", "src", "edge"])
@pytest.mark.parametrize("rhs_at", ["dst", "src", "edge"])
def test_sddmm_of_any_two_edge_by_edge(name, lhs_at, rhs_at):
    g = graph(name)
    rows = {"dst": g.num_dst, "src": g.num_src, "edge": g.num_edges}
    lhs, rhs = normal(rows[lhs_at], 2, 3), normal(rows[rhs_at], 3)
    sub, dot = (sddmm_reference(g, lhs, rhs, op, (lhs_at, rhs_at)) for op in ("sub", "dot"))
    for e, (u, v) in enumerate(g.edge_index.t().tolist()):
        place = {"dst": v, "src": u, "edge": e}
        left, right = lhs[place[lhs_at]], rhs[place[rhs_at]]
        torch.testing.assert_close(sub[e], left - right)
        torch.testing.assert_close(dot[e], left @ right)


@each_graph
def test_edge_softmax_and_gat_attention_node_by_node(name):
    g = graph(name)
    x, score_src, score_dst = normal(g.num_src, 2, 3), normal(g.num_src, 2), normal(g.num_dst, 2)
    edge_score = normal(g.num_edges, 2)
    softmax = edge_softmax_reference(g, edge_score)
    out = gat_attention_reference(g, x, score_src, score_dst, edge_score, 0.1, 0.0, None)
    for node in range(g.num_dst):
        edges = edges_into(g, node)
        torch.testing.assert_close(softmax[edges], edge_score[edges].softmax(0))
        source = g.edge_index[0, edges]
        score = score_src[source] + score_dst[node] + edge_score[edges]
        alpha = torch.where(score > 0, score, 0.1 * score).softmax(0)
        torch.testing.assert_close(out[node], (alpha[:, :, None] * x[source]).sum(0))


@each_graph
def test_dot_attention_node_by_node(name):
    g = graph(name)
    query, (key, value) = normal(g.num_dst, 2, 3), normal(2, g.num_src, 2, 3)
    edge_bias, edge_x = normal(g.num_edges, 2), normal(g.num_edges, 2, 3)
    out = dot_attention_reference(g, query, key, value, edge_bias, edge_x, 0.7, 0.0, None)
    for node in range(g.num_dst):
        edges = edges_into(g, node)
        source = g.edge_index[0, edges]
        score = torch.einsum("hd,ehd->eh", query[node], key[source] + edge_x[edges])
        alpha = (0.7 * score + edge_bias[edges]).softmax(0)
        expected = torch.einsum("eh,ehd->hd", alpha, value[source] + edge_x[edges])
        torch.testing.assert_close(out[node], expected)


@each_graph
def test_gatv2_attention_node_by_node(name):
    g = graph(name)
    x_src, x_dst, att = normal(g.num_src, 2, 3), normal(g.num_dst, 2, 3), normal(2, 3)
    edge_x = normal(g.num_edges, 2, 3)
    out = gatv2_attention_reference(g, x_src, x_dst, att, edge_x, 0.1, 0.0, None)
    for node in range(g.num_dst):
        edges = edges_into(g, node)
        source = g.edge_index[0, edges]
        pre = x_src[source] + x_dst[node] + edge_x[edges]
        score = torch.einsum("ehd,hd->eh", torch.where(pre > 0, pre, 0.1 * pre), att)
        expected = torch.einsum("eh,ehd->hd", score.softmax(0), x_src[source])
        torch.testing.assert_close(out[node], expected)


def test_segments_one_by_one():
    indptr = torch.tensor([0, 0, 3, 4, 4, 9], dtype=torch.int32)
    x = normal(9, 2, 3)
    parts = x.tensor_split(indptr[1:-1].long())
    for reduce, function in {"sum": torch.sum, "mul": torch.prod, "mean": torch.mean}.items():
        out = segment_reduce_reference(x, indptr, reduce)
        for row, part in zip(out, parts, strict=True):
            expected = function(part, dim=0).nan_to_num(0)
            torch.testing.assert_close(row, expected)
    for reduce, function in {"max": torch.amax, "min": torch.amin}.items():
        out = segment_reduce_reference(x, indptr, reduce)
        for row, part in zip(out, parts, strict=True):
            torch.testing.assert_close(row, function(part, 0) if len(part) else row * 0)
    expected = torch.cat([part.softmax(0) for part in parts])
    torch.testing.assert_close(segment_softmax_reference(x, indptr), expected)
    rows = segment_gather_reference(x[:5], indptr)
    assert torch.equal(rows, x[[1, 1, 1, 2, 4, 4, 4, 4, 4]])
    logarithms = segment_logsumexp_reference(x, indptr)
    for row, part in zip(logarithms, parts, strict=True):
        torch.testing.assert_close(row, part.logsumexp(0))


def test_matrix_products_row_by_row():
    indptr = torch.tensor([0, 0, 3, 4, 4, 9], dtype=torch.int32)
    x, weight, bias = normal(9, 4), normal(5, 4, 3), normal(5, 3)
    types = torch.tensor([1, 1, 1, 2, 4, 4, 4, 4, 4])
    shuffled = torch.randperm(9)
    sorted_rows = segment_matmul_reference(x, indptr, weight, bias)
    rows = gather_matmul_reference(x[shuffled], weight, types[shuffled], bias)
    for row, kind in enumerate(types):
        torch.testing.assert_close(sorted_rows[row], x[row] @ weight[kind] + bias[kind])
    torch.testing.assert_close(rows, sorted_rows[shuffled])


@pytest.mark.parametrize("unbiased", [False, True])
def test_statistics_group_by_group(unbiased):
    index = torch.tensor([4, 1, 1, 0, 4, 4, 1])
    x = normal(7, 3)
    logarithms = scatter_logsumexp_reference(x, index, 6)
    spread = scatter_std_reference(x, index, 6, unbiased)
    for group in range(6):
        rows = x[index == group]
        torch.testing.assert_close(logarithms[group], rows.logsumexp(0))
        expected = rows.std(0, correction=int(unbiased)) if len(rows) > 1 else rows.new_zeros(3)
        torch.testing.assert_close(spread[group], expected)


@pytest.mark.parametrize("reduce", ["sum", "mean", "max", "min", "mul"])
def test_scatter_is_segments_of_sorted_rows(reduce):
    index = torch.tensor([4, 1, 1, 0, 4, 4, 1])
    x = normal(7, 3)
    out = scatter_reduce_reference(x, index, 6, reduce)
    indptr = torch.tensor([0, 1, 4, 4, 4, 7, 7])
    expected = segment_reduce_reference(x[index.argsort(stable=True)], indptr, reduce)
    torch.testing.assert_close(out, expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves_are_reduced_in_float32_and_rounded_once(dtype):
    x = (1 + 0.01 * normal(5000, 1)).to(dtype)
    index = torch.zeros(5000, dtype=torch.int64)
    out = scatter_reduce_reference(x, index, 1, "mean")
    assert torch.equal(out, x.double().mean(0, keepdim=True).to(dtype))


# Random bits


def test_philox_known_answers():
    # The published answer for 7 rounds and a counter and key of 0.
    zero = torch.zeros(1, dtype=torch.int64)
    expected = [0x5F6FB709, 0x0D893F64, 0x4F121F81, 0x4F730A48]
    assert philox_words(zero, zero).tolist() == [expected]


@pytest.mark.parametrize("seed", [0, 1, -1, 2**31, 2**32 + 5, -(2**63), 2**63 - 1])
@pytest.mark.parametrize("block", [0, 1, 2**31 - 1, 2**32 + 3, 2**61 - 1])
def test_philox_is_that_of_pythons_integers(seed, block):
    words = philox_words(torch.tensor([seed]), torch.tensor([block]))
    assert words.tolist() == [philox_of_integers(seed, block)]


def philox_of_integers(seed, block):
    word = 2**32 - 1
    key = [seed & word, (seed >> 32) & word]
    counter = [block & word, (block >> 32) & word, 0, 0]
    for _ in range(7):
        high_0, low_0 = divmod(0xD2511F53 * counter[0], 2**32)
        high_1, low_1 = divmod(0xCD9E8D57 * counter[2], 2**32)
        counter = [high_1 ^ counter[1] ^ key[0], low_1, high_0 ^ counter[3] ^ key[1], low_0]
        key = [(key[0] + 0x9E3779B9) & word, (key[1] + 0xBB67AE85) & word]
    return counter


@pytest.mark.parametrize("num_edges, heads", [(0, 3), (3, 0), (1, 1), (5, 1), (7, 3), (100, 4)])
def test_dropout_takes_the_words_in_order(num_edges, heads):
    seed = 1234567890123
    mask = dropout_keep_mask(torch.tensor([seed]), num_edges, heads, 0.3)
    assert mask.shape == (num_edges, heads)
    words = [philox_of_integers(seed, i >> 2)[i & 3] for i in range(num_edges * heads)]
    expected = [word >= round(0.3 * 2**32) for word in words]
    assert mask.flatten().tolist() == expected


def test_dropout_thresholds():
    assert dropout_threshold(0.0) == 0
    assert dropout_threshold(0.5) == 2**31
    assert dropout_threshold(1 - 1e-16) == 2**32 - 1
    assert dropout_threshold(1e-12) == 0
