"""Where and in which numbers PyTorch computes, as compare.py says through the environment."""

import os

import torch

DEVICE = os.environ.get("LSGM_COMPARE_DEVICE", "cpu")
ON_GPU = DEVICE != "cpu"
COMPILES = os.environ.get("LSGM_COMPARE_COMPILE") == "1"

torch.set_default_device(DEVICE)


def prepare(module):
    """A module as PyTorch is fastest: on a GPU channels last, and compiled if that was asked for."""
    if ON_GPU and isinstance(module, torch.nn.Module):
        module = module.to(memory_format=torch.channels_last)
    return torch.compile(module) if COMPILES else module


def channels_last(x):
    """Planes in the layout of `prepare`."""
    return x.to(memory_format=torch.channels_last) if ON_GPU and x.dim() == 4 else x


def call(step):
    """One call, to its end: on a GPU with matrix products in bf16."""
    if not ON_GPU:
        return step()
    with torch.autocast(DEVICE, dtype=torch.bfloat16):
        step()
    torch.cuda.synchronize()


def gpu_memory():
    """The most MiB that tensors have held on the GPU."""
    return torch.cuda.max_memory_allocated() / 2**20
