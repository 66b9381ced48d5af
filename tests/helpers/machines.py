"""A machine that nobody has to measure."""

import torch

from gnnkern.hardware import Machine


def made_up_machine(device: str = "cpu") -> Machine:
    """Round numbers: a cache of 1 MiB, memory a tenth as fast."""
    return Machine(
        device=device,
        name="Made Up",
        cores=2,
        threads=torch.get_num_threads(),
        isa="avx2",
        vector_bits=256,
        cache_bytes={"L1d": 1 << 15, "L1i": 1 << 15, "L2": 1 << 20},
        memory_bytes=1 << 33,
        copy_bytes_per_s={1 << 18: 1e11, 1 << 20: 1e11, 1 << 28: 1e10},
        gather_bytes_per_s={
            64: {1 << 18: 4e10, 1 << 20: 4e10, 1 << 28: 1e9},
            256: {1 << 18: 8e10, 1 << 20: 8e10, 1 << 28: 4e9},
        },
        matmul_flops_per_s={"float32": 1e11, "bfloat16": 4e11},
        op_call_s=1e-5,
        torch_call_s=1e-6,
        measured_s=1.0,
        measured_at="2026-01-01T00:00:00Z",
    )
