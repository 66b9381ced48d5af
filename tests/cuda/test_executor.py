"""The host executor: every planted fault is caught, and every operation is as CUDA defines it."""

import numpy as np
import pytest
import torch
from helpers.host_executor import NOT_BUILT, host_module

host = host_module()
pytestmark = pytest.mark.skipif(host is None, reason=NOT_BUILT)

SEEDS = range(8)


@pytest.fixture(autouse=True)
def _settings():
    yield
    host.set_seed(0)
    host.set_poison(True)


# Faults


@pytest.mark.parametrize("in_warp", [False, True], ids=["block", "warp"])
def test_a_missing_barrier_shows(in_warp):
    expected = [i ^ 1 for i in range(64)] if in_warp else [(i + 1) % 64 for i in range(64)]
    for seed in SEEDS:
        host.set_seed(seed)
        assert host.neighbour(in_warp, True).tolist() == expected
        # Whatever the order, some thread reads before the other has written, and gets poison.
        raced = host.neighbour(in_warp, False)
        assert (raced == -1).any() and not (raced == expected).all()


@pytest.mark.parametrize(
    "name, message",
    [
        (
            "barrier_not_reached",
            "not all threads reach a barrier: thread .* waits for its block at "
            r"planted\.cpp:\d+; 24 of 64 threads have ended",
        ),
        ("different_barriers", r"threads wait at different barriers: .* at planted\.cpp:\d+, "),
        ("barrier_and_warp", "waits for its warp at .* waits for its block at "),
        ("lane_missing", r"waits for its warp at planted\.cpp:\d+; 2 of 64 threads have ended"),
        ("lanes_apart", "lanes of one warp wait at different operations"),
        ("unnamed_lane", r"lane \d+ reads lane 20, which the mask does not name"),
        ("own_lane_unnamed", r"thread \((0|32), 0, 0\) is not in the mask that it passes"),
        ("lanes_beyond_block", "names lanes that the block does not have"),
        ("beyond_shared", "shared memory was written beyond its end"),
        ("beyond_dynamic", "shared memory was written beyond its end"),
        ("too_much_shared", "more than 48 KB of static shared memory"),
        ("too_much_dynamic", "dynamic shared memory were not asked for"),
    ],
)
def test_a_planted_fault_is_told(name, message):
    for seed in SEEDS:
        host.set_seed(seed)
        with pytest.raises(RuntimeError, match=f"{name}: the launch of its CUDA .*{message}"):
            host.fault(name)
        # The next launch is not affected.
        assert sorted(host.indices()) == list(range(288))


def test_the_block_is_named():
    with pytest.raises(RuntimeError, match=r"in block \([012], 0, 0\)"):
        host.fault("barrier_not_reached")


# Order and memory


def test_orders_follow_from_the_seed():
    def order(seed):
        host.set_seed(seed)
        return host.order(6, 64)

    assert np.array_equal(order(1), order(1))
    first, second = order(1), order(2)
    assert sorted(first.ravel()) == list(range(6 * 64))
    # Blocks run one after another, shuffled, and threads are shuffled in each of them.
    for clock in (first, second):
        blocks = clock.min(axis=1)
        assert (clock.max(axis=1) - blocks == 63).all()
        assert blocks.tolist() != sorted(blocks)
        assert all(row.tolist() != sorted(row) for row in clock)
    assert not np.array_equal(first, second)


def test_indices_of_three_dimensions():
    assert host.indices().tolist() == list(range(288))


def test_shared_memory_is_poisoned_for_each_block():
    assert np.isnan(host.poison(5)).all()
    host.set_poison(False)
    assert (host.poison(5) == 1).sum() >= 2 * 4


# Operations


@pytest.mark.parametrize("width", [2, 8, 32])
@pytest.mark.parametrize("amount", [0, 1, 3, 16, 31])
def test_shuffles(amount, width):
    lane = np.arange(32)
    begin = lane // width * width
    last = begin + width - 1
    up, down, xor = lane - amount, lane + amount, lane ^ amount
    sources = [
        begin + amount % width,
        np.where(up < begin, lane, up),
        np.where(down > last, lane, down),
        np.where(xor > last, lane, xor),
    ]
    values = np.random.default_rng(amount).standard_normal(32)
    expected = values[np.stack(sources)]
    assert np.array_equal(host.shuffles_double(values, amount, width), expected)
    single = host.shuffles(values.astype(np.float32), amount, width)
    assert np.array_equal(single, expected.astype(np.float32))


@pytest.mark.parametrize("seed", SEEDS)
def test_votes(seed):
    host.set_seed(seed)
    generator = np.random.default_rng(seed)
    values = generator.integers(-1200, 1200, 32).astype(np.int32)
    values[generator.integers(0, 32, 8)] = 7
    out = host.votes(values)
    bit = 1 << np.arange(32, dtype=np.uint64)
    for parity in (0, 1):
        own = values[parity::2]
        bits = own.view(np.uint32)
        names = bit[parity::2]
        expected = [
            names[own > 0].sum(),
            (own > 1000).any(),
            (own > -1000).all(),
            [names[own == value].sum() for value in own],
            own.sum(),
            own.min(),
            own.max(),
            np.bitwise_and.reduce(bits),
            np.bitwise_or.reduce(bits),
            np.bitwise_xor.reduce(bits),
        ]
        for row, value in zip(out, expected, strict=False):
            wide = np.broadcast_to(np.asarray(value).astype(np.uint32), 16)
            assert np.array_equal(row[parity::2].view(np.uint32), wide)
    assert (out[10] == (values > 0).sum()).all()
    assert (out[11] == (values > 0).all()).all()
    assert (out[12] == (values > 0).any()).all()


def test_atomics():
    values = np.random.default_rng(0).integers(-1000, 1000, 96).astype(np.int32)
    start = np.array([3, 4, 500, -500, -1, 1, 5, 0, 0], np.int32)
    out = host.atomics(start.copy(), values)
    assert out.tolist() == [
        3 + values.sum(),
        4 - values.sum(),
        values.min(),
        values.max(),
        np.bitwise_and.reduce(values),
        1 | np.bitwise_or.reduce(values),
        5 ^ np.bitwise_xor.reduce(values),
        (values < 0).sum(),
        96 % 3,
    ]


def test_atomics_of_vectors():
    # Sums of small integers are exact in any order.
    values = np.random.default_rng(1).integers(-100, 100, 96).astype(np.float32)
    assert host.vector_atomics(values).tolist() == [i * values.sum() for i in range(1, 7)]


def test_conversions():
    # Torch converts as IEEE 754 says.
    every = torch.arange(65536, dtype=torch.int32).to(torch.uint16)
    bits = torch.cat([torch.randint(-(2**31), 2**31, (2**14,)), torch.arange(-64, 64) << 16])
    # Halfway between two halves, or two of bfloat16, and around that.
    some = torch.randint(0, 2**16, (2**14,))
    for middle in (
        every.view(torch.float16).float().view(torch.int32)[some] + 0x1000,
        (some << 16) + 0x8000,
    ):
        bits = torch.cat([bits, middle + torch.randint(-1, 2, some.shape)])
    numbers = bits.to(torch.int32).view(torch.float32)
    assert len(numbers) <= 2**16
    from_half, from_bfloat16, to_half, to_bfloat16 = map(
        torch.from_numpy, host.conversions(numbers.numpy())
    )
    for actual, dtype in ((from_half, torch.float16), (from_bfloat16, torch.bfloat16)):
        torch.testing.assert_close(
            actual, every.view(dtype).float(), rtol=0, atol=0, equal_nan=True
        )
    for actual, dtype in ((to_half, torch.float16), (to_bfloat16, torch.bfloat16)):
        torch.testing.assert_close(
            actual.view(dtype), numbers.to(dtype), rtol=0, atol=0, equal_nan=True
        )
