"""The PyTorch side of the comparison; compare.py starts it and asks for measurements (see main.rs)."""

import json
import math
import os
import statistics
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn

import networks
from placement import ON_GPU, call, channels_last, gpu_memory, prepare

torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


def layer(module, shape):
    """Forward and backward with respect to the input and the parameters; the gradient of the output is one."""
    x, module = channels_last(torch.randn(shape)).requires_grad_(), prepare(module)
    leaves = [x] + (list(module.parameters()) if isinstance(module, nn.Module) else [])

    def step():
        for leaf in leaves:
            leaf.grad = None
        y = module(x)
        y.backward(torch.ones_like(y))

    return step


def conv(kind, row):
    groups, weight = row.get("groups", 1), row["weight"]
    inputs, outputs = weight[1] * groups, weight[0]
    if kind is nn.ConvTranspose2d:
        inputs, outputs = weight[0], weight[1] * groups
    module = kind(
        inputs, outputs, tuple(weight[2:]), stride=row.get("stride", 1), padding=row.get("padding", 0), groups=groups
    )
    return layer(module, row["input"])


class SelfAttention(nn.Module):
    def __init__(self, channels, heads):
        super().__init__()
        self.inner = nn.MultiheadAttention(channels, heads, batch_first=True)

    def forward(self, x):
        return self.inner(x, x, x, need_weights=False)[0]


def group_norm(row):
    norm = nn.GroupNorm(row["groups"], row["input"][1])
    return nn.Sequential(norm, nn.SiLU()) if row.get("silu") else norm


def attention(row):
    inputs = [torch.randn(row["input"], requires_grad=True) for _ in range(3)]

    def step():
        for x in inputs:
            x.grad = None
        y = F.scaled_dot_product_attention(*inputs)
        y.backward(torch.ones_like(y))

    return step


class Block(nn.Module):
    """x + conv(silu(norm(conv(silu(norm(x))))))"""

    def __init__(self, channels, groups):
        super().__init__()
        half = lambda: [nn.GroupNorm(groups, channels), nn.SiLU(), nn.Conv2d(channels, channels, 3, padding=1)]
        self.inner = nn.Sequential(*half(), *half())

    def forward(self, x):
        return x + self.inner(x)


def resnet(row):
    shape = row["input"]
    model = prepare(nn.Sequential(*[Block(shape[1], row["groups"]) for _ in range(row["blocks"])]))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    x, target = channels_last(torch.randn(shape)), torch.randn(shape)

    def step():
        optimizer.zero_grad()
        F.mse_loss(model(x), target).backward()
        optimizer.step()

    return step


def adamw(row):
    parameters = [nn.Parameter(torch.randn(row["elements"])) for _ in range(row["tensors"])]
    for p in parameters:
        p.grad = torch.randn_like(p)
    return torch.optim.AdamW(parameters, lr=1e-6, fused=True).step


BUILD = {
    "conv2d": lambda row: conv(nn.Conv2d, row),
    "conv1d": lambda row: conv(nn.Conv1d, row),
    "conv_transpose2d": lambda row: conv(nn.ConvTranspose2d, row),
    "linear": lambda row: layer(nn.Linear(row["weight"][1], row["weight"][0]), row["input"]),
    "batch_norm": lambda row: layer(nn.BatchNorm2d(row["input"][1]), row["input"]),
    "group_norm": lambda row: layer(group_norm(row), row["input"]),
    "layer_norm": lambda row: layer(nn.LayerNorm(row["input"][1]), row["input"]),
    "silu": lambda row: layer(F.silu, row["input"]),
    "softmax": lambda row: layer(lambda x: F.softmax(x, -1), row["input"]),
    "multi_head_attention": lambda row: layer(SelfAttention(row["input"][2], row["heads"]), row["input"]),
    "attention": attention,
    "resnet": resnet,
    "adamw": adamw,
    "nvae": networks.nvae,
    "lsgm": networks.lsgm,
    "sample": networks.sample,
}


def measure(step, seconds):
    """Median milliseconds of a call, after one that is not counted."""
    call(step)
    start, times = time.perf_counter(), []
    while not times or time.perf_counter() - start < seconds:
        began = time.perf_counter()
        call(step)
        times.append((time.perf_counter() - began) * 1e3)
    return statistics.median(times)


def memory(key):
    """A number of /proc/self/status in MiB."""
    try:
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) / 1024 for line in status if line.startswith(key + ":"))
    except OSError:
        return math.nan


def main():
    built = {}
    for line in sys.stdin:
        request = json.loads(line)
        before = memory("VmRSS")
        key = json.dumps(request["row"])
        if key not in built:
            built[key] = BUILD[request["row"]["op"]](request["row"])
        if request["what"] == "time":
            value = measure(built[key], request["seconds"])
        else:
            for _ in range(3):
                call(built[key])
            value = gpu_memory() if ON_GPU else memory("VmHWM") - before
        print(json.dumps({"value": value}), flush=True)


if __name__ == "__main__":
    main()
