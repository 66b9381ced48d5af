"""Rows in fewer bits, on ranks, beside the rows that were sent."""

import torch
import torch.distributed as dist
from rank_checks import largest, my_part, normal
from rank_training import CLASSES, training

import gnnkern
from gnnkern.distributed import Exact, HaloExchange, Schedule, Wire, parse_policy
from gnnkern.distributed.wire import WIRE_TYPES, WireMemory, as_wire

FLOATS = (torch.float64, torch.float32, torch.bfloat16)
WIDTHS = (0, 1, 3, 33)


def spread(num_rows, width, dtype):
    """Rows of very different sizes, one of them zero."""
    sizes = 10.0 ** (6 * torch.rand(num_rows, 1, generator=torch.Generator().manual_seed(1)) - 3)
    x = normal(num_rows, width, dtype=torch.float64) * sizes
    x[0] = 0.0
    return x.to(dtype)


def row_bytes(kind, dtype, width):
    """Bytes of a row: never more than it has."""
    size = width * dtype.itemsize
    return min(size, {None: size, "int8": 4 + width}.get(kind, 2 * width))


def allowed(kind, x):
    """How far each element may be from where it was: nothing, where rows go as they are."""
    x = x.double().abs()
    if kind == "int8":
        return (x.amax(1, keepdim=True) if x.shape[1] else x) * (1 + 1e-6) / 254
    return x * 2.0**-8 if kind == "bfloat16" else x * 2.0**-11 + 2.0**-25


def errors_are_within_bounds(group, kind):
    """Every element of every ghost, in each dtype, and the gradient on its way back."""
    graph, mine = my_part(group, "communities", "random")
    exact = mine.exact
    for dtype in FLOATS:
        # Halves of halves are refused: their own rounding is as large.
        for width in WIDTHS:
            x = spread(graph.num_dst, width, dtype)
            my_x = x[mine.owned].requires_grad_()
            ghosts = exact.with_wire(kind)(my_x)
            gap = (ghosts.detach().double() - x[exact.plan.ghosts].double()).abs()
            within = allowed(kind, x[exact.plan.ghosts])
            if row_bytes(kind, dtype, width) == row_bytes(None, dtype, width):
                within = torch.zeros_like(within)
            elif dtype == torch.bfloat16:
                # The decoded number is rounded once more.
                within = within + x[exact.plan.ghosts].double().abs() * 2.0**-8
            assert bool((gap <= within).all()), (dtype, width, float((gap - within).max()))
            coefficients = normal(len(ghosts), width, seed=3, dtype=dtype)
            (grad,) = torch.autograd.grad((ghosts * coefficients).sum(), my_x)
            assert torch.equal(grad, exact.transposed(coefficients)), "gradients go as they are"
            if dtype == torch.bfloat16:
                continue
            there = exact.with_wire(Wire(None, kind))(my_x)
            assert torch.equal(there.detach(), x[exact.plan.ghosts]), "rows go as they are"
            (rounded,) = torch.autograd.grad((there * coefficients).sum(), my_x)
            most = exact.transposed(allowed(kind, coefficients)).to(dtype)
            gap = (rounded - grad).abs()
            assert bool((gap <= most * (1 + 1e-4) + 1e-5).all()), (dtype, width, "gradient")
    ids = torch.arange(graph.num_dst)
    assert torch.equal(exact.with_wire(kind)(ids[mine.owned]), exact.plan.ghosts), "integers"


class Counted:
    """Bytes handed to the process group for other ranks, in `with`."""

    def __enter__(self):
        self.bytes, self._real = 0, dist.all_to_all_single

        def counted(received, sent, received_splits=None, sent_splits=None, **options):
            rank = dist.get_rank(options.get("group"))
            rows = sum(sent_splits) - sent_splits[rank]
            self.bytes += rows * sent[:1].numel() * sent.element_size()
            return self._real(received, sent, received_splits, sent_splits, **options)

        dist.all_to_all_single = counted
        return self

    def __exit__(self, *error):
        dist.all_to_all_single = self._real


def bytes_are_as_predicted(group):
    """Several tensors of several dtypes in one exchange, both ways, counted and really sent."""
    _, mine = my_part(group, "communities", "random")
    plan = mine.exact.plan
    tensors = [(torch.float32, 17), (torch.float32, 1), (torch.float64, 3), (torch.bfloat16, 9)]
    for wire in (None, *WIRE_TYPES, "int8,bfloat16", "float16,int8", Wire(None, "bfloat16")):
        exchange = mine.exact.with_wire(wire)
        exchange.before_first(torch.device("cpu"))
        kinds = as_wire(wire) or Wire()
        rows = [normal(mine.num_dst, width, dtype=dtype) for dtype, width in tensors]
        mine.traffic.reset()
        with Counted() as counted:
            ghosts = exchange.start([x.requires_grad_() for x in rows]).finish()
            torch.autograd.backward([x.sum() for x in ghosts])
        expected = sum(
            plan.num_sent * row_bytes(kinds.rows, dtype, width)
            + plan.num_ghosts * row_bytes(kinds.gradient, dtype, width)
            for dtype, width in tensors
        )
        assert sum(mine.traffic.bytes.values()) == expected, (wire, mine.traffic, expected)
        assert counted.bytes == expected, (wire, counted.bytes, expected)


def what_is_not_finite_arrives_so(group, kind):
    """NaN and infinities, in either direction, and no row is lost for ever by them."""
    graph, mine = my_part(group, "communities", "random")
    ghosts = mine.exact.plan.ghosts
    bad = {0: torch.nan, 1: torch.inf, 2: -torch.inf}
    good = spread(graph.num_dst, 5, torch.float32).clamp(-1e4, 1e4)
    x = good.clone()
    for remainder, value in bad.items():
        x[remainder::7, 2] = value
    if kind == "float16":
        x[3::7, 1] = 1e5
    exchange, memory = mine.exact.with_wire(kind), WireMemory()
    arrived = exchange.start([x[mine.owned]], memory).finish()[0]
    lost = ~torch.isfinite(x[ghosts])
    if kind == "float16":
        lost |= x[ghosts].abs() > 65504
    elements = lost.any(1, keepdim=True).expand_as(lost) if kind == "int8" else lost
    assert torch.equal(~torch.isfinite(arrived), elements)
    again = exchange.start([good[mine.owned]], memory).finish()[0]
    # What was left out of a row may be as large as an error of its own.
    within = allowed(kind, good[ghosts]) * 2.1
    assert bool(((again - good[ghosts]).abs() <= within).all())
    back = exchange.with_wire(Wire(None, kind))
    my_x = good[mine.owned].requires_grad_()
    out = back(my_x)
    (grad,) = torch.autograd.grad(out, my_x, x[ghosts])
    expected = mine.exact.transposed(torch.where(elements, torch.nan, 0.0))
    assert torch.equal(torch.isfinite(grad), torch.isfinite(expected))


def mean_of_what_arrives(group, kind, feedback, there):
    """Sums of ghosts, or of gradients, over steps of a schedule: the error of their mean."""
    graph, mine = my_part(group, "communities", "random")
    wire = Wire(kind, None, feedback) if there else Wire(None, kind, feedback)
    schedule = Schedule(mine, Exact(), steps=100, wire=wire)
    x = normal(graph.num_dst, 6)
    coefficients = normal(graph.num_dst, 6, seed=1)[mine.owned]
    exact_x = x[mine.owned].requires_grad_()
    exact = gnnkern.spmm(mine, exact_x)
    (exact_grad,) = torch.autograd.grad(exact, exact_x, coefficients)
    total, errors = 0.0, []
    # The first exchange of a site is exact.
    gnnkern.spmm(schedule.begin(0), exact_x)
    for step in range(64):
        my_x = x[mine.owned].requires_grad_()
        out = gnnkern.spmm(schedule.begin(step + 1), my_x)
        (grad,) = torch.autograd.grad(out, my_x, coefficients)
        gap = (out.detach() - exact.detach()) if there else grad - exact_grad
        total = total + gap.double()
        errors.append(largest(total / (step + 1)))
    first, last = torch.tensor([errors[0], errors[-1]], dtype=torch.float64).tolist()
    return first, last


def another_wire(group):
    """A rank with another wire type; nothing may be exchanged."""
    _, mine = my_part(group, "communities", "metis")
    last = dist.get_rank(group) == dist.get_world_size(group) - 1
    exchange = HaloExchange(mine.exact.plan, group, wire="int8" if last else "bfloat16")
    try:
        exchange(normal(mine.num_dst, 3))
    finally:
        assert exchange.traffic.exchanges == 0


def a_training_in_fewer_bits(group, wire):
    """The bytes of steps, there and back, and exact scores."""
    world = dist.get_world_size(group)
    plain, rounded = (training(group, world, "gcn", "exact", 4, wire=each) for each in (None, wire))
    # Degrees are exchanged at first, and rows as they are.
    rounded.step(0)
    traffic, plan = rounded.graph.traffic, rounded.graph.exact.plan
    traffic.reset()
    losses = [rounded.step(step) for step in (1, 2, 3)]
    kinds = as_wire(wire)
    there, back = (
        sum(row_bytes(kind, torch.float32, width) for width in (rounded.recipe.hidden, CLASSES))
        for kind in (kinds.rows, kinds.gradient)
    )
    assert sum(traffic.bytes.values()) == 3 * (plan.num_sent * there + plan.num_ghosts * back)
    rounded.net.load_state_dict(plain.net.state_dict())
    assert plain.evaluate() == rounded.evaluate()
    return losses


def receivers_have_what_senders_believe(group, policy, wire, cover):
    """Site by site, for every policy, with rounding, and sums among the rows."""
    graph, mine = my_part(group, "communities", "random", cover=cover)
    schedule = Schedule(mine, parse_policy(policy), steps=12, wire=wire, measure=True)
    weight = normal(graph.num_edges, seed=1)[mine.local_edges]
    x = normal(graph.num_dst, 6)[mine.owned]
    for step in range(6):
        # Rows move by very different amounts, so that `Drift` sends some of them.
        moves = normal(graph.num_dst, 1, seed=step)[mine.owned] ** 3 / 10
        my_x = (x * (1 + step * moves)).requires_grad_()
        view = schedule.begin(step)
        first = gnnkern.spmm(view, my_x, weight)
        gnnkern.spmm(view, first, weight).sum().backward()
        schedule.settle()
    for site in schedule._sites:
        plan = site.plan
        assert (site.carrier is not None) == cover
        for held, sent in zip(site.ghosts, site.sent, strict=True):
            arrived = held.new_empty(plan.num_ghosts, held.shape[1])
            splits = plan.recv_splits, plan.send_splits
            dist.all_to_all_single(arrived, sent.contiguous(), *splits, group=group)
            assert torch.equal(arrived, held), (policy, site.number)
