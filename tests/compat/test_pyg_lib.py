"""The stand-in for pyg-lib's ops, against the same in plain torch."""

import pytest
import torch

from gnnkern.compat.pyg_lib import ops

PTR = torch.tensor([0, 3, 3, 7, 8])
LEFT, RIGHT = torch.tensor([4, 0, 0, 2, 1, 1, 4]), torch.tensor([0, 2, 1, 2, 0, 0, 1])


def normal(*shape, dtype=torch.float64):
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(shape, generator=generator, dtype=dtype)


@pytest.mark.parametrize("with_bias", [False, True])
def test_segment_matmul(with_bias):
    x, matrices = normal(8, 5).requires_grad_(), normal(4, 5, 6).requires_grad_()
    bias = normal(4, 6).requires_grad_() if with_bias else None
    expected = torch.cat([x[a:b] @ matrices[i] for i, (a, b) in enumerate(zip(PTR, PTR[1:]))])  # noqa: B905, RUF007
    if bias is not None:
        expected = expected + bias.repeat_interleave(PTR.diff(), 0)
    torch.testing.assert_close(ops.segment_matmul(x, PTR, matrices, bias), expected)
    inputs = (x, matrices) if bias is None else (x, matrices, bias)
    assert torch.autograd.gradcheck(lambda x, m, b=None: ops.segment_matmul(x, PTR, m, b), inputs)


def test_segment_matmul_of_integers():
    x, matrices = torch.arange(16).view(8, 2), torch.arange(24).view(4, 2, 3)
    bias = torch.arange(12).view(4, 3)
    out = ops.segment_matmul(x, PTR, matrices, bias)
    assert torch.equal(out[3:7], x[3:7] @ matrices[2] + bias[2])


@pytest.mark.parametrize("widths", [[(4, 3)] * 3, [(4, 3), (2, 5), (1, 1)]], ids=["one", "several"])
@pytest.mark.parametrize("with_bias", [False, True])
def test_grouped_matmul(widths, with_bias):
    inputs = [normal(rows, k).requires_grad_() for rows, (k, _) in zip((5, 0, 2), widths)]  # noqa: B905
    others = [normal(*shape).requires_grad_() for shape in widths]
    biases = [normal(m) for _, m in widths] if with_bias else None
    outs = ops.grouped_matmul(inputs, others, biases)
    for i, out in enumerate(outs):
        expected = inputs[i] @ others[i]
        torch.testing.assert_close(out, expected if biases is None else expected + biases[i])
    sum(out.sum() for out in outs).backward()
    expected = torch.outer(inputs[0].detach().sum(0), torch.ones(3).double())
    torch.testing.assert_close(others[0].grad, expected)


@pytest.mark.parametrize("op", ["add", "sub", "mul", "div"])
@pytest.mark.parametrize("indexed", ["both", "left", "right"])
def test_sampled_arithmetic(op, indexed):
    left_index = LEFT if indexed != "right" else None
    right_index = RIGHT if indexed != "left" else None
    left = normal(5 if left_index is not None else 7, 3).requires_grad_()
    right = (normal(3 if right_index is not None else 7, 3) + 4).requires_grad_()
    function = getattr(ops, f"sampled_{op}")
    lhs = left if left_index is None else left[left_index]
    rhs = right if right_index is None else right[right_index]
    expected = getattr(torch, op)(lhs, rhs)
    torch.testing.assert_close(function(left, right, left_index, right_index), expected)

    def call(left, right):
        return function(left, right, left_index, right_index)

    assert torch.autograd.gradcheck(call, (left, right))
    assert torch.autograd.gradgradcheck(call, (left, right))


def test_sampled_integers_and_no_index():
    left, right = torch.arange(10).view(5, 2), torch.arange(6).view(3, 2)
    assert torch.equal(ops.sampled_add(left, right, LEFT, RIGHT), left[LEFT] + right[RIGHT])
    with pytest.raises(ValueError, match="left_index or right_index must be given"):
        ops.sampled_add(left, left)


@pytest.mark.parametrize("dim", [0, 1, -1])
def test_softmax_csr(dim):
    shape = [2, 3, 4]
    shape[dim] = 8
    src = normal(*shape).requires_grad_()
    parts = [part.softmax(dim) for part in src.split(PTR.diff().tolist(), dim)]
    torch.testing.assert_close(ops.softmax_csr(src, PTR, dim), torch.cat(parts, dim))
    assert torch.autograd.gradcheck(lambda x: ops.softmax_csr(x, PTR, dim), (src,))


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64, torch.int16], ids=str)
@pytest.mark.parametrize("max_value", [None, 9, 10**6, 3])
def test_index_sort(dtype, max_value):
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randint(10, (50,), generator=generator).to(dtype)
    values, order = ops.index_sort(inputs, max_value)
    expected = inputs.sort(stable=True)
    assert torch.equal(values, expected.values)
    assert torch.equal(order, expected.indices)
    assert values.dtype == dtype and order.dtype == torch.int64


@pytest.mark.parametrize("inputs", [[], [0, 1, 1, 5], [2, -1, 3], [10**12, 5]])
def test_index_sort_of_awkward_values(inputs):
    inputs = torch.tensor(inputs, dtype=torch.int64)
    values, order = ops.index_sort(inputs)
    assert torch.equal(values, inputs.sort().values)
    assert torch.equal(inputs[order], values)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.parametrize("name", ops.__all__)
def test_torchscript_calls_every_function(name):
    arguments = {
        "grouped_matmul": ([normal(3, 2)], [normal(2, 4)]),
        "segment_matmul": (normal(8, 2), PTR, normal(4, 2, 3)),
        "softmax_csr": (normal(8), PTR),
        "index_sort": (LEFT,),
    }.get(name, (normal(5, 2), normal(7, 2), LEFT))
    expected = getattr(ops, name)(*arguments)
    actual = torch.jit.script(getattr(ops, name))(*arguments)
    torch.testing.assert_close(actual, expected)
