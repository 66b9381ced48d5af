"""The choice of a backend, the instruction sets, and one thread pool."""

import subprocess
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch.autograd import forward_ad

import gnnkern
from gnnkern import Graph, _cuda, _native, _preferences, _triton, backends, ops
from gnnkern._triton import import_error
from gnnkern.backends import BackendUnavailable, Implementation, Query

GRAPH = Graph.from_edge_index(torch.randint(0, 300, (2, 5000)), 300)
X = torch.randn(300, 33)


def test_a_backend_that_cannot_run_raises_with_every_reason():
    with pytest.raises(BackendUnavailable) as error:
        gnnkern.spmm(GRAPH, X, backend="cuda")
    message = str(error.value)
    devices = [f"{name}: it runs on CUDA tensors, got cpu" for name in ("triton", "cuda")]
    for name in ("cpu: can run", "reference: can run", *devices):
        assert name in message
    with pytest.raises(ValueError, match="backend must be one of"):
        gnnkern.spmm(GRAPH, X, backend="fast")


def test_use_backend_holds_inside_its_block_and_thread():
    with gnnkern.use_backend("triton"):
        with pytest.raises(BackendUnavailable):
            gnnkern.spmm(GRAPH, X)
        gnnkern.spmm(GRAPH, X, backend="cpu")
        with gnnkern.use_backend("reference"):
            gnnkern.spmm(GRAPH, X)
    gnnkern.spmm(GRAPH, X)
    with pytest.raises(ValueError, match="backend must be one of"), gnnkern.use_backend("gpu"):
        pass


def test_landing_on_the_reference_is_not_silent():
    broken = Implementation("cpu", lambda: None, lambda query: ["it is broken"])
    plain = Implementation("reference", lambda: None, lambda query: [])
    backends._warned.clear()
    with pytest.warns(UserWarning, match="it is broken"):
        chosen = backends.choose("spmm", (broken, plain), Query("cpu", torch.float32), None)
    assert chosen is plain
    with pytest.raises(BackendUnavailable, match="it is broken"):
        backends.choose("spmm", (broken, plain), Query("cpu", torch.float32), "cpu")


def test_report_names_every_op_and_backend():
    rows = backends.report()
    assert {row[0] for row in rows} == set(ops.__all__)
    assert {row[1] for row in rows} == {"reference", "cpu", "triton", "cuda"}
    assert all(not reasons for _, name, reasons in rows if name in ("cpu", "reference"))
    if not torch.cuda.is_available():
        assert all(reasons for _, name, reasons in rows if name in ("triton", "cuda"))


def test_a_gpu_gets_triton_where_it_is_installed():
    for op, implementations in ops.implementations().items():
        choice = backends.survey(op, implementations, Query("cuda", torch.float32), None)
        has_triton = any(i.backend == "triton" for i in implementations)
        expected = "triton" if has_triton and import_error() is None else "reference"
        assert choice.backend == expected, (op, choice)


def on_gpu(backend):
    return Implementation(backend, lambda: None, lambda query: [])


def test_measurements_say_which_backend_a_gpu_gets(monkeypatch):
    table = tuple(map(on_gpu, ("triton", "cuda", "reference")))
    query = Query("cuda", torch.float32)
    unmeasured = backends.survey("spmm", table, query, None)
    assert unmeasured.backend == "triton" and "not measured" in unmeasured.why
    row = _preferences.Measured("cuda", 1.25, "H200", "torch 2.11", "abc1234", "python -m bench")
    monkeypatch.setitem(_preferences.MEASURED, "spmm", row)
    measured = backends.survey("spmm", table, query, None)
    assert measured.backend == "cuda" and "1.25 times as fast for spmm on H200" in measured.why
    assert backends.choose("spmm", table, query, None) is table[1]
    # Other ops keep their order, and a wish counts more.
    assert backends.choose("sddmm", table, query, None) is table[0]
    assert backends.choose("spmm", table, query, "triton") is table[0]
    assert backends.choose("spmm", table[::2], query, None) is table[0]


def test_preferences_name_ops_and_backends():
    assert _preferences.MEASURED.keys() <= set(ops.__all__)
    for row in _preferences.MEASURED.values():
        assert row.first in ("triton", "cuda") and row.ratio >= 1


def test_the_host_executor_has_to_be_asked_for():
    table = (Implementation("cuda", lambda: None, backends.cuda_unsupported),)
    cpu, gpu = Query("cpu", torch.float32), Query("cuda", torch.float32)
    assert "CUDA tensors, got cpu" in backends.survey("spmm", table, cpu, "cuda").against["cuda"][0]
    with _cuda.stand_in(ModuleType("host")):
        assert backends.survey("spmm", table, cpu, None).backend is None
        assert backends.survey("spmm", table, cpu, "cuda").backend == "cuda"
        assert "host executor" in backends.survey("spmm", table, gpu, "cuda").against["cuda"][0]
    assert backends.survey("spmm", table, cpu, "cuda").backend is None


@pytest.mark.parametrize(
    "error, message",
    [
        (ModuleNotFoundError("gnnkern._C_cuda"), "this build has no CUDA kernels"),
        (ImportError("undefined symbol: x"), "the CUDA module did not load: undefined symbol: x"),
        (None, "the driver is asleep"),
    ],
)
def test_what_keeps_cuda_from_running_is_told(monkeypatch, error, message):
    def load(name):
        if error is not None:
            raise error
        return SimpleNamespace(unusable=lambda: "the driver is asleep")

    monkeypatch.setattr(_cuda, "_Native", type("_Native", (_cuda._Native,), {"tried": False}))
    monkeypatch.setattr(_cuda.importlib, "import_module", load)
    assert message in _cuda.unusable()
    assert message in "; ".join(backends.cuda_unsupported(Query("cuda", torch.float32)))
    if error is not None:
        with pytest.raises(RuntimeError, match=message):
            _cuda.module()


def test_the_interpreter_has_to_be_asked_for(monkeypatch):
    cpu = Query("cpu", torch.float32)
    table = ops.implementations()["spmm"]
    assert "TRITON_INTERPRET" in backends.survey("spmm", table, cpu, "triton").against["triton"][0]
    monkeypatch.setattr(_triton, "INTERPRETS", True)
    assert backends.survey("spmm", table[1:], cpu, None).backend == "reference"
    assert backends.survey("spmm", table, cpu, "triton").backend == "triton"
    on_gpu = backends.survey("spmm", table, Query("cuda", torch.float32), None)
    assert "interpreter runs on CPU tensors" in on_gpu.against["triton"][0]


def test_a_missing_triton_gives_its_reason(monkeypatch):
    monkeypatch.setattr(_triton, "_FOUND", False)
    with pytest.raises(BackendUnavailable, match="triton is not installed"):
        backends.choose(
            "spmm", ops.implementations()["spmm"], Query("cuda", torch.float32), "triton"
        )


def test_a_missing_module_gives_its_reason(monkeypatch):
    monkeypatch.setattr(_native, "native", None)
    monkeypatch.setattr(_native, "native_error", "no such file")
    with pytest.raises(BackendUnavailable, match="did not load: no such file"):
        gnnkern.spmm(GRAPH, X, backend="cpu")


@pytest.mark.parametrize("dtype", backends.FLOAT_DTYPES)
def test_every_instruction_set_agrees(dtype):
    x = X.to(dtype)
    heads = torch.randn(300, 4, 10).to(dtype)
    scores = [torch.randn(300, 4).to(dtype) for _ in range(2)]
    edge = torch.randn(5000, 3).to(dtype)

    def run():
        return (
            gnnkern.spmm(GRAPH, x),
            gnnkern.spmm(GRAPH, x, edge[:, 0], reduce="max"),
            gnnkern.sddmm(GRAPH, x, x),
            gnnkern.edge_softmax(GRAPH, edge),
            gnnkern.gat_attention(GRAPH, heads, *scores),
            gnnkern.gatv2_attention(GRAPH, heads, heads, heads[0]),
            gnnkern.dot_attention(GRAPH, heads, heads, heads, edge_bias=edge[:, :1].expand(-1, 4)),
            gnnkern.multi_reduce(GRAPH, x),
            gnnkern.segment_matmul(x[:, :4], torch.tensor([0, 100, 300]), heads[:2]),
            gnnkern.segment_logsumexp(edge, torch.tensor([0, 2000, 5000])),
            gnnkern.scatter_std(edge, torch.arange(5000) % 7),
        )

    module = _native.native
    names = module.build_info()["isas"]
    before = module.build_info()["isa"]
    try:
        results = []
        for name in names:
            module.set_isa(name)
            results.append(run())
    finally:
        module.set_isa(before)
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-5}.get(dtype, 2e-2)
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)
    with pytest.raises(ValueError, match="neon"):
        module.set_isa("neon")


def test_the_process_has_one_openmp():
    code = (
        "import torch, gnnkern, re\n"
        "torch.ones(1000, 1000) @ torch.ones(1000, 1000)\n"
        "maps = open('/proc/self/maps').read()\n"
        "print(len(set(re.findall(r'/\\S*lib(?:gomp|iomp5|omp)[^/\\s]*', maps))))\n"
        "torch.set_num_threads(1)\n"
        "print(gnnkern._native.native.build_info()['openmp_threads'])\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert result.stdout.split() == ["1", "1"]


def test_forward_mode_raises_instead_of_losing_the_tangent():
    with pytest.raises(RuntimeError, match="transforms of torch.func"):
        torch.func.jvp(lambda x: gnnkern.spmm(GRAPH, x, reduce="max"), (X,), (X,))
    with forward_ad.dual_level(), pytest.raises(RuntimeError, match="forward"):
        gnnkern.spmm(GRAPH, forward_ad.make_dual(X, X), reduce="max")
    # What has no tangent is an ordinary input.
    with forward_ad.dual_level():
        gnnkern.spmm(GRAPH, X, reduce="max")


def test_autograd_works_in_threads():
    x = X.clone().requires_grad_()
    expected = torch.autograd.grad(gnnkern.spmm(GRAPH, x).square().sum(), x)[0]
    with torch.autograd.set_multithreading_enabled(False):
        again = torch.autograd.grad(gnnkern.spmm(GRAPH, x).square().sum(), x)[0]
    assert torch.equal(expected, again)
