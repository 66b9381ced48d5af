"""Wire types: how far rows are off, what they cost, what becomes of what is left out."""

import pytest
import rank_multirate
import rank_wire
import torch
from ranks import RankError

from gnnkern.distributed import Wire
from gnnkern.distributed.wire import WIRE_TYPES, Codec, WireMemory, as_wire

on_ranks = pytest.mark.dist
each_type = pytest.mark.parametrize("kind", WIRE_TYPES)
# Three ranks have splits of their own; one exchanges nothing, and that works.
some_worlds = pytest.mark.parametrize("run", [1, 3], indirect=True)
three = pytest.mark.parametrize("run", [3], indirect=True)


@on_ranks
@some_worlds
@each_type
def test_errors_are_within_bounds(run, kind):
    run(rank_wire.errors_are_within_bounds, kind)


@on_ranks
@some_worlds
def test_bytes_are_as_predicted(run):
    run(rank_wire.bytes_are_as_predicted)


@on_ranks
@three
@each_type
def test_what_is_not_finite_arrives_so(run, kind):
    run(rank_wire.what_is_not_finite_arrives_so, kind)


@on_ranks
@three
@each_type
@pytest.mark.parametrize("there", [True, False], ids=["rows", "gradients"])
def test_feedback_makes_the_mean_converge(run, kind, there):
    for first, last in run(rank_wire.mean_of_what_arrives, kind, True, there):
        assert 0 < last < first / 20
    for first, last in run(rank_wire.mean_of_what_arrives, kind, False, there):
        assert last == pytest.approx(first, rel=1e-2)


@on_ranks
@pytest.mark.parametrize("run", [2, 4], indirect=True)
@each_type
def test_the_bound_is_never_below_the_error(run, kind):
    wires = (kind, f"{kind},{kind}", Wire(kind, feedback=False))
    worst = run(rank_multirate.bound_holds, 30, wires)[0]
    assert worst > 0.3


@on_ranks
@three
def test_ranks_with_other_types_are_refused(run, four_ranks):
    four_ranks.send(rank_wire.another_wire, world=run.world)
    answers = four_ranks.answers(run.world)
    for answer in answers:
        assert isinstance(answer, RankError) and answer.kind == "PlanMismatch"
    assert "this rank's wire is Wire(rows='bfloat16'" in answers[0].message


@on_ranks
@three
@pytest.mark.parametrize("wire", ["bfloat16", "int8,bfloat16"])
def test_a_training_sends_fewer_bytes_and_is_judged_exactly(run, wire):
    for losses in run(rank_wire.a_training_in_fewer_bits, wire):
        assert losses[-1] < losses[0]


@on_ranks
@three
@pytest.mark.parametrize("policy", ["exact", "hold:2", "drift:0.2", "pipelined", "sampled:0.5"])
@pytest.mark.parametrize("wire", [None, "int8,int8", Wire("bfloat16", feedback=False)])
@pytest.mark.parametrize("cover", [False, True], ids=["rows", "cover"])
def test_receivers_have_what_senders_believe(run, policy, wire, cover):
    run(rank_wire.receivers_have_what_senders_believe, policy, wire, cover)


@each_type
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_message_has_its_bytes_and_gives_its_rows(kind, dtype):
    """Rows one by one are those of all at once: pieces begin at any byte."""
    widths = [3, 1, 0, 7]
    parts = [rank_wire.spread(5, width, dtype) for width in widths]
    codec = Codec(kind, dtype, widths)
    message = codec.encode(parts)
    expected = sum(rank_wire.row_bytes(kind, dtype, width) for width in widths)
    assert message.dtype is torch.uint8 and message.shape == (5, expected)
    rows = codec.decode(message)
    assert rows.dtype is dtype and rows.shape == (5, sum(widths))
    for row in range(5):
        assert torch.equal(codec.decode(message[row : row + 1]), rows[row : row + 1])


@pytest.mark.parametrize("size", [1e-45, 1e-38, 1e-36, 1e30, 3e38])
def test_rows_of_any_size_in_eight_bits(size):
    x = torch.tensor([[1.0, -0.3, 0.0]]) * size
    codec = Codec("int8", torch.float32, [3])
    # Twice as wide, or the row would go as it is.
    gap = (codec.decode(codec.encode([x])).double() - x.double()).abs().max()
    assert float(gap) <= size * (1 + 1e-6) / 254 + 1.5e-36


def test_left_out_of_one_site_is_not_added_at_another():
    codec, memory = Codec("int8", torch.float32, [8]), WireMemory()
    x = rank_wire.normal(4, 8)
    first = codec.decode(codec.encode([x], memory, "rows"))
    assert torch.equal(codec.decode(codec.encode([x], memory, "gradient")), first)
    again = codec.decode(codec.encode([x], memory, "rows"))
    assert not torch.equal(again, first)
    left = memory.left["rows 0"]
    assert torch.allclose(first + again + left, 2 * x, atol=1e-6)
    # Of some rows alone: the others' stays as it is.
    some = torch.tensor([True, False, True, False])
    part = memory.of_rows(some, ~some)
    third = codec.decode(codec.encode([x[some]], part, "rows"))
    assert torch.allclose(third + memory.left["rows 0"][some], x[some] + left[some], atol=1e-6)
    assert torch.equal(memory.left["rows 0"][~some], left[~some])


@pytest.mark.parametrize(
    ("wire", "expected"),
    [
        (None, None),
        (Wire(), None),
        ("int8", Wire("int8")),
        ("int8,bfloat16", Wire("int8", "bfloat16")),
    ],
)
def test_wires_in_words(wire, expected):
    assert as_wire(wire) == expected


@pytest.mark.parametrize(
    ("wire", "message"),
    [
        ("float8", "rows must be one of bfloat16, float16, int8 or None, got 'float8'"),
        ("int8,", "gradient must be one of"),
        ("int8,int8,int8", "must be TYPE or TYPE,TYPE"),
        (torch.bfloat16, "must be a Wire, a string or None, got dtype"),
    ],
)
def test_no_wire(wire, message):
    with pytest.raises((ValueError, TypeError), match=message):
        as_wire(wire)
