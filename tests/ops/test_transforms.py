"""Forward mode and the transforms of torch.func, on every op that is linear in its tensors."""

import functools

import pytest
import torch
from helpers.cases import normal
from helpers.graphs import graph, scatter_index, segments
from torch.autograd import forward_ad
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, vjp, vmap

import gnnkern

NAMES = ("multi_edges", "bipartite", "isolated_ends", "no_edges")
HEADS, WIDTH, BATCH = 2, 3, 4


def spmm(name, reduce, form):
    g = graph(name)
    heads = (HEADS,) if "heads" in form else ()
    tensors = [normal(g.num_src, *heads, WIDTH)]
    if "weight" in form:
        tensors.append(normal(g.num_edges, *(heads if "per_head" in form else ())))
    return functools.partial(gnnkern.spmm, g, reduce=reduce), tensors


MESSAGES = {
    "row": ((WIDTH,), (WIDTH,)),
    "heads": ((HEADS, WIDTH), (HEADS, 1)),
    "crossed": ((HEADS, 1), (1, WIDTH)),
}


def spmm_message(name, word, form):
    g = graph(name)
    op, reduce = word.split()
    x_shape, edge_shape = MESSAGES[form]
    edge = normal(g.num_edges, *edge_shape)
    tensors = [normal(g.num_src, *x_shape), edge + edge.sign()]
    return functools.partial(gnnkern.spmm, g, op=op, reduce=reduce), tensors


def spmm_edges(name, reduce, form):
    g = graph(name)
    return functools.partial(gnnkern.spmm, g, None, reduce=reduce), [normal(g.num_edges, WIDTH)]


def sddmm(name, op, form):
    g = graph(name)
    trailing = (HEADS, WIDTH) if form == "heads" else (WIDTH,)
    x_dst, x_src = normal(g.num_dst, *trailing), normal(g.num_src, *trailing)
    return functools.partial(gnnkern.sddmm, g, op=op), [x_dst, x_src + x_src.sign()]


ENDS = {
    "dst-edge": (((HEADS, WIDTH), (HEADS, WIDTH)), ("dst", "edge")),
    "edge-src": (((HEADS, 1), (HEADS, WIDTH)), ("edge", "src")),
    "src-dst": (((1, WIDTH), (HEADS, WIDTH)), ("src", "dst")),
    "src-src": (((1, WIDTH), (HEADS, WIDTH)), ("src", "src")),
}


def sddmm_anywhere(name, op, form):
    g = graph(name)
    shapes, ends = ENDS[form]
    rows = {"dst": g.num_dst, "src": g.num_src, "edge": g.num_edges}
    lhs, rhs = (normal(rows[end], *shape) for end, shape in zip(ends, shapes, strict=True))
    return functools.partial(gnnkern.sddmm, g, op=op, targets=ends), [lhs, rhs + rhs.sign()]


def sddmm_copy(name, op, end):
    g = graph(name)
    x = normal({"dst": g.num_dst, "src": g.num_src, "edge": g.num_edges}[end], HEADS, WIDTH)
    if op == "copy_lhs":
        return lambda x, backend=None: gnnkern.sddmm(
            g, x, None, op=op, targets=(end, "src"), backend=backend
        ), [x]
    return lambda x, backend=None: gnnkern.sddmm(
        g, None, x, op=op, targets=("dst", end), backend=backend
    ), [x]


def segment_reduce(name, reduce, form):
    indptr = segments(name)
    x = normal(int(indptr[-1]), WIDTH)
    return functools.partial(gnnkern.segment_reduce, indptr=indptr, reduce=reduce), [x]


def segment_gather(name, _, form):
    indptr = segments(name)
    return functools.partial(gnnkern.segment_gather, indptr=indptr), [normal(len(indptr) - 1, 2)]


def scatter_reduce(name, reduce, form):
    index, size = scatter_index(name)
    op = functools.partial(gnnkern.scatter_reduce, index=index, num_segments=size, reduce=reduce)
    return op, [normal(len(index), WIDTH)]


CASES = [
    *((spmm, reduce, form) for reduce in ("sum", "mean") for form in ("x", "x_weight")),
    *((spmm, "sum", form) for form in ("heads_weight", "heads_weight_per_head")),
    *((spmm_message, f"{op} sum", "row") for op in ("add", "sub", "mul", "div")),
    *((spmm_message, f"{op} mean", "crossed") for op in ("add", "div")),
    *((spmm_message, "mul sum", form) for form in ("heads", "crossed")),
    *((spmm_edges, reduce, "x") for reduce in ("sum", "mean")),
    *((sddmm, op, "x") for op in ("dot", "add", "sub", "mul", "div")),
    (sddmm, "dot", "heads"),
    (sddmm, "mul", "heads"),
    *((sddmm_anywhere, "dot", form) for form in ("dst-edge", "src-dst")),
    *((sddmm_anywhere, op, "edge-src") for op in ("add", "mul", "div")),
    (sddmm_anywhere, "sub", "src-dst"),
    *((sddmm_anywhere, op, "src-src") for op in ("dot", "div")),
    *((sddmm_copy, "copy_lhs", end) for end in ("dst", "src", "edge")),
    (sddmm_copy, "copy_rhs", "src"),
    *((segment_reduce, reduce, "x") for reduce in ("sum", "mean")),
    (segment_gather, "", "x"),
    *((scatter_reduce, reduce, "x") for reduce in ("sum", "mean")),
]
each_case = pytest.mark.parametrize(
    "make, word, form", CASES, ids=[f"{m.__name__}-{w}-{f}" for m, w, f in CASES]
)
each_graph = pytest.mark.parametrize("name", NAMES)


def close(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)


def both(transform, op, tensors):
    """Compare a transform of the kernels' op with that of the reference's."""
    results = [
        transform(functools.partial(op, backend=backend), *tensors)
        for backend in ("cpu", "reference")
    ]
    close(*results)


def loss(function):
    return lambda *tensors: function(*tensors).square().sum()


def every(tensors):
    return tuple(range(len(tensors)))


@each_case
@each_graph
def test_grad_and_vjp(make, word, form, name):
    op, tensors = make(name, word, form)
    both(lambda f, *t: grad(loss(f), every(t))(*t), op, tensors)
    # The pullback runs after its transform has ended.
    both(lambda f, *t: vjp(f, *t)[1](vjp(f, *t)[0].cos()), op, tensors)


@each_case
@each_graph
def test_jvp(make, word, form, name):
    op, tensors = make(name, word, form)
    tangents = tuple(normal(*t.shape) for t in tensors)
    both(lambda f, *t: jvp(f, t, tangents), op, tensors)
    # Along the first tensor alone, and twice.
    both(lambda f, *t: jvp(lambda x: f(x, *t[1:]), t[:1], tangents[:1]), op, tensors)
    both(lambda f, *t: jvp(lambda *t: jvp(loss(f), t, tangents)[1], t, tangents), op, tensors)


@each_case
@each_graph
def test_forward_mode(make, word, form, name):
    op, tensors = make(name, word, form)
    tangents = [normal(*t.shape) for t in tensors]

    def dual(f, *tensors):
        with forward_ad.dual_level():
            pairs = zip(tensors, tangents, strict=True)
            out = f(*(forward_ad.make_dual(t, tangent) for t, tangent in pairs))
            primal, tangent = forward_ad.unpack_dual(out)
            return primal.clone(), tangent.clone()

    both(dual, op, tensors)


@each_case
@pytest.mark.parametrize("name", ["multi_edges"])
def test_jacobians(make, word, form, name):
    op, tensors = make(name, word, form)
    both(lambda f, *t: jacfwd(f, every(t))(*t), op, tensors)
    both(lambda f, *t: jacrev(f, every(t))(*t), op, tensors)


@each_case
@pytest.mark.parametrize("name", ["multi_edges"])
def test_hessian(make, word, form, name):
    op, tensors = make(name, word, form)
    both(lambda f, *t: hessian(loss(f), every(t))(*t), op, tensors)


def batches(tensors):
    """Every choice of the tensors that have a batch, at different places."""
    for chosen in range(1, 2 ** len(tensors)):
        dims = tuple(
            (t.dim() if i else 0) if chosen >> i & 1 else None for i, t in enumerate(tensors)
        )
        batched = tuple(
            t if dim is None else torch.stack([t * (k + 1) - k for k in range(BATCH)], dim)
            for t, dim in zip(tensors, dims, strict=True)
        )
        yield dims, batched


@each_case
@each_graph
def test_vmap(make, word, form, name):
    op, tensors = make(name, word, form)
    for dims, batched in batches(tensors):
        both(lambda f, *t, dims=dims: vmap(f, dims)(*t), op, batched)


@each_case
@each_graph
def test_compositions(make, word, form, name):
    op, tensors = make(name, word, form)
    n = every(tensors)
    for dims, batched in batches(tensors):
        both(lambda f, *t, dims=dims: vmap(grad(loss(f), n), dims)(*t), op, batched)
        both(lambda f, *t, dims=dims: grad(loss(vmap(f, dims)), n)(*t), op, batched)
        both(lambda f, *t, dims=dims: jvp(vmap(f, dims), t, t), op, batched)
        both(lambda f, *t, dims=dims: vmap(lambda *t: jvp(f, t, t), dims)(*t), op, batched)
    tangents = tuple(normal(*t.shape) for t in tensors)
    both(lambda f, *t: jvp(grad(loss(f), n), t, tangents), op, tensors)
    both(lambda f, *t: grad(lambda *t: jvp(loss(f), t, tangents)[1], n)(*t), op, tensors)


@each_case
def test_vmap_inside_of_ordinary_autograd(make, word, form):
    op, tensors = make("multi_edges", word, form)
    for dims, batched in batches(tensors):

        def derivatives(f, *tensors, dims=dims):
            leaves = [t.detach().requires_grad_() for t in tensors]
            first = torch.autograd.grad(
                vmap(f, dims)(*leaves).square().sum(), leaves, create_graph=True
            )
            total = sum(gradient.square().sum() for gradient in first)
            return first, torch.autograd.grad(total, leaves)

        both(derivatives, op, batched)


@each_case
def test_vmap_of_vmap(make, word, form):
    op, tensors = make("bipartite", word, form)
    twice = [torch.stack([torch.stack([t, 2 * t]), torch.stack([t - 1, 3 * t])]) for t in tensors]
    both(lambda f, *t: vmap(vmap(f))(*t), op, twice)


def test_one_kernel_serves_the_whole_batch():
    op, (x, weight) = spmm("bipartite", "sum", "x_weight")
    calls = []

    class Recorder(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            calls.append(func)
            return func(*args, **(kwargs or {}))

    with Recorder():
        vmap(op, (0, None))(torch.stack([x] * 9), weight)
    assert sum(func.namespace == "gnnkern" for func in calls) == 1


@pytest.mark.parametrize(
    "transform",
    [
        lambda f: lambda x: grad(loss(f))(x),
        lambda f: lambda x: jvp(f, (x,), (x,)),
        lambda f: lambda x: vmap(f)(torch.stack([x, 2 * x])),
    ],
    ids=["grad", "jvp", "vmap"],
)
def test_compiled_transforms_leave_the_graph_and_keep_their_values(transform):
    op, (x,) = spmm("bipartite", "sum", "x")
    torch.compiler.reset()
    function = transform(op)
    close(torch.compile(function, backend="aot_eager")(x), function(x))


def test_a_layer_under_functional_call():
    g = graph("bipartite")
    layer = torch.nn.Linear(WIDTH, 5).double()
    x = normal(g.num_src, WIDTH)

    def objective(parameters, backend):
        h = functional_call(layer, parameters, (x,))
        return gnnkern.spmm(g, h.tanh(), backend=backend).square().sum()

    parameters = dict(layer.named_parameters())
    cpu, reference = (grad(objective)(parameters, b) for b in ("cpu", "reference"))
    close(cpu, reference)


def test_what_is_not_linear_says_what_works():
    g = graph("bipartite")
    x = normal(g.num_src, WIDTH)
    score = normal(g.num_edges)
    for call in (
        lambda x: gnnkern.spmm(g, x, reduce="max"),
        lambda x: gnnkern.segment_reduce(x, torch.tensor([0, len(x)]), reduce="mul"),
        lambda x: gnnkern.scatter_reduce(x, torch.zeros(len(x)).long(), reduce="min"),
        lambda x: gnnkern.edge_softmax(g, score * x.sum()),
        lambda x: gnnkern.gatv2_attention(g, x[:, None], x.new_ones(g.num_dst, 1, WIDTH), x[:1]),
        lambda x: gnnkern.segment_matmul(x, torch.tensor([0, len(x)]), x.new_ones(1, WIDTH, 2)),
        lambda x: gnnkern.gather_matmul(x, x.new_ones(1, WIDTH, 2), torch.zeros(len(x)).long()),
        lambda x: gnnkern.segment_logsumexp(x, torch.tensor([0, len(x)])),
        lambda x: gnnkern.scatter_logsumexp(x, torch.zeros(len(x)).long()),
        lambda x: gnnkern.scatter_std(x, torch.zeros(len(x)).long()),
    ):
        for transform in (
            lambda f: grad(lambda x: f(x).sum())(x),
            lambda f: jvp(f, (x,), (x,)),
            lambda f: vmap(f)(x[None]),
        ):
            with pytest.raises(RuntimeError, match="spmm.*sum and mean.*backend='reference'"):
                transform(call)
        with (
            forward_ad.dual_level(),
            pytest.raises(RuntimeError, match="forward.*sum and mean.*backend='reference'"),
        ):
            call(forward_ad.make_dual(x, x))
