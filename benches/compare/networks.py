"""The networks of two rows in PyTorch, for their time and memory alone: an NVAE in the published MNIST layout (Vahdat &
Kautz 2020, arXiv 2007.03898) and the NCSN++ prior of LSGM (Song et al. 2021, arXiv 2011.13456).

Sizes are read from the row; with 64 channels, 3 cells a block and 2 groups of 20 latents the autoencoder has 3.0 M
parameters, and with 256 channels and 2 scales of 8 blocks the prior has 63.8 M.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F

from placement import prepare


class NormConv(nn.Conv2d):
    """A convolution with weight normalisation: each output channel has a learned length."""

    def __init__(self, inputs, outputs, kernel, stride=1, bias=True):
        super().__init__(inputs, outputs, kernel, stride, padding=(kernel - 1) // 2, bias=bias)
        self.log_length = nn.Parameter(self.weight.detach().flatten(1).norm(dim=1).log())

    def forward(self, x):
        length = self.weight.flatten(1).norm(dim=1) + 1e-5
        weight = self.weight * (self.log_length.exp() / length)[:, None, None, None]
        return F.conv2d(x, weight, self.bias, self.stride, self.padding)


class SqueezeExcite(nn.Module):
    def __init__(self, channels):
        super().__init__()
        hidden = max(channels // 16, 4)
        self.gate = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels), nn.Sigmoid())

    def forward(self, x):
        return x * self.gate(x.mean((2, 3)))[:, :, None, None]


class ReducingSkip(nn.Module):
    """Half the resolution: four 1×1 convolutions on the four phases, side by side."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.parts = nn.ModuleList(NormConv(inputs, outputs // 4, 1, stride=2) for _ in range(4))

    def forward(self, x):
        x = F.silu(x)
        phases = (x, x[:, :, 1:, 1:], x[:, :, :, 1:], x[:, :, 1:, :])
        return torch.cat([part(phase) for part, phase in zip(self.parts, phases)], 1)


class Cell(nn.Module):
    """`skip(x) + 0.1 · gated body(x)`."""

    def __init__(self, body, outputs, skip):
        super().__init__()
        self.body, self.gate, self.skip = body, SqueezeExcite(outputs), skip

    def forward(self, x):
        return self.skip(x) + 0.1 * self.gate(self.body(x))


def batch_norm(channels):
    return nn.BatchNorm2d(channels, eps=1e-5, momentum=0.05)


def encoder_cell(inputs, outputs, down=False):
    def half(inputs, stride):
        return [batch_norm(inputs), nn.SiLU(), NormConv(inputs, outputs, 3, stride)]

    body = nn.Sequential(*half(inputs, 2 if down else 1), *half(outputs, 1))
    return Cell(body, outputs, ReducingSkip(inputs, outputs) if down else nn.Identity())


def decoder_cell(inputs, outputs, expansion, up=False):
    hidden = inputs * expansion
    wider = [nn.UpsamplingNearest2d(scale_factor=2)] if up else []
    body = nn.Sequential(
        *wider,
        batch_norm(inputs),
        nn.Conv2d(inputs, hidden, 1, bias=False), batch_norm(hidden), nn.SiLU(),
        nn.Conv2d(hidden, hidden, 5, padding=2, groups=hidden, bias=False), batch_norm(hidden), nn.SiLU(),
        nn.Conv2d(hidden, outputs, 1, bias=False), batch_norm(outputs),
    )  # fmt: skip
    skip = nn.Sequential(*wider, NormConv(inputs, outputs, 1, bias=False)) if up else nn.Identity()
    return Cell(body, outputs, skip)


class Nvae(nn.Module):
    """One latent scale, a quarter of the resolution of the images."""

    def __init__(self, row):
        super().__init__()
        c, cells, latents, groups = row["channels"], row["cells"], row["latents"], row["groups"]
        wide = 2 * c
        self.stem = NormConv(1, c, 3)
        before = [encoder_cell(c, c) for _ in range(cells - 1)] + [encoder_cell(c, wide, down=True)]
        before += [encoder_cell(wide, wide) for _ in range(cells - 1)] + [encoder_cell(wide, wide, down=True)]
        self.before = nn.Sequential(*before)
        self.encoder = nn.ModuleList(encoder_cell(wide, wide) for _ in range(groups))
        self.meet = nn.ModuleList(NormConv(wide, wide, 1) for _ in range(groups - 1))
        self.posterior = nn.ModuleList(nn.Sequential(nn.ELU(), NormConv(wide, 2 * latents, 3)) for _ in range(groups))
        self.start = nn.Parameter(torch.rand(1, wide, 8, 8))
        self.smooth = nn.ModuleList(NormConv(latents, latents, 3) for _ in range(groups))
        self.join = nn.ModuleList(NormConv(wide + latents, wide, 1) for _ in range(groups))
        self.decoder = nn.ModuleList(decoder_cell(wide, wide, 6) for _ in range(groups))
        after = [decoder_cell(wide, wide, 3, up=True)] + [decoder_cell(wide, wide, 3) for _ in range(cells - 1)]
        after += [decoder_cell(wide, c, 3, up=True)] + [decoder_cell(c, c, 3) for _ in range(cells - 1)]
        self.after = nn.Sequential(*after, nn.ELU(), NormConv(c, 1, 3))

    def forward(self, x):
        """Latents, their negative entropy and the reconstruction loss, in nats for each item."""
        features, s = [], self.before(self.stem(2 * x - 1))
        for cell in self.encoder:
            features.append(s)
            s = cell(s)
        h, latents, negative_entropy = self.start.expand(len(x), -1, -1, -1), [], 0
        for g, (posterior, smooth, join, cell) in enumerate(zip(self.posterior, self.smooth, self.join, self.decoder)):
            if g > 0:
                s = features[-g] + self.meet[g - 1](h)
            mean, log_sigma = (5 * torch.tanh(v / 5) for v in posterior(s).chunk(2, 1))
            noise = torch.randn_like(mean)
            latents.append(mean + log_sigma.exp() * noise)
            negative_entropy = negative_entropy - (0.5 * noise**2 + log_sigma + 0.5 * math.log(2 * math.pi)).sum((1, 2, 3))
            h = cell(join(torch.cat([h, smooth(latents[-1])], 1)))
        logits = self.after(h)
        loss = F.binary_cross_entropy_with_logits(logits, x, reduction="none")[:, :, 2:30, 2:30].sum((1, 2, 3))
        return torch.cat(latents, 1), negative_entropy, loss


class Residual(nn.Module):
    """A block of NCSN++ (the one of BigGAN); `scale` is 2 up, ½ down, or 1."""

    def __init__(self, inputs, outputs, embedding, scale=1):
        super().__init__()
        self.scale = scale
        self.norms = nn.ModuleList(nn.GroupNorm(min(c // 4, 32), c, eps=1e-6) for c in (inputs, outputs))
        self.convs = nn.ModuleList(nn.Conv2d(c, outputs, 3, padding=1) for c in (inputs, outputs))
        self.time, self.dropout = nn.Linear(embedding, outputs), nn.Dropout(0.2)
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs or scale != 1 else nn.Identity()

    def resample(self, x):
        if self.scale == 1:
            return x
        return F.interpolate(x, scale_factor=2) if self.scale == 2 else F.avg_pool2d(x, 2)

    def forward(self, x, time):
        h = self.resample(F.silu(self.norms[0](x)))
        h = self.convs[0](h) + self.time(time)[:, :, None, None]
        h = self.convs[1](self.dropout(F.silu(self.norms[1](h))))
        return (self.skip(self.resample(x)) + h) / math.sqrt(2)


class Attention(nn.Module):
    """Self-attention of one head over the positions."""

    def __init__(self, channels):
        super().__init__()
        self.norm = nn.GroupNorm(min(channels // 4, 32), channels, eps=1e-6)
        self.qkv, self.out = nn.Conv2d(channels, 3 * channels, 1), nn.Conv2d(channels, channels, 1)

    def forward(self, x):
        q, k, v = self.qkv(self.norm(x)).flatten(2).transpose(1, 2).unsqueeze(1).chunk(3, -1)
        y = F.scaled_dot_product_attention(q, k, v).squeeze(1).transpose(1, 2).reshape(x.shape)
        return (x + self.out(y)) / math.sqrt(2)


class Ncsnpp(nn.Module):
    """Two scales; its prediction is mixed with that for N(0, I)."""

    def __init__(self, row):
        super().__init__()
        latents, c, blocks, self.features = row["latents"] * row["groups"], row["prior_channels"], row["blocks"], 128
        wide = 4 * self.features
        self.time = nn.Sequential(nn.Linear(self.features, wide), nn.SiLU(), nn.Linear(wide, wide), nn.SiLU())
        self.first = nn.Conv2d(latents, c, 3, padding=1)
        same = lambda: [Residual(c, c, wide) for _ in range(blocks)]
        self.down = nn.ModuleList([*same(), Residual(c, c, wide, scale=0.5), *same()])
        self.middle = nn.ModuleList([Residual(c, c, wide), Attention(c), Residual(c, c, wide)])
        join = lambda: [Residual(2 * c, c, wide) for _ in range(blocks + 1)]
        self.up = nn.ModuleList([*join(), Residual(c, c, wide, scale=2), *join()])
        self.last = nn.Sequential(nn.GroupNorm(32, c, eps=1e-6), nn.SiLU(), nn.Conv2d(c, latents, 3, padding=1))
        self.mixing = nn.Parameter(torch.full((1, latents, 1, 1), -6.0))

    def forward(self, z, t, sigma):
        half = self.features // 2
        angles = 1000 * t[:, None] * torch.exp(torch.arange(half) * (-math.log(10000) / (half - 1)))
        time = self.time(torch.cat([angles.sin(), angles.cos()], 1))
        h = self.first(z)
        kept = [h]
        for block in self.down:
            h = block(h, time)
            kept.append(h)
        h = self.middle[2](self.middle[1](self.middle[0](h, time)), time)
        for block in self.up:
            h = block(h if block.scale == 2 else torch.cat([h, kept.pop()], 1), time)
        alpha = torch.sigmoid(self.mixing)
        return (1 - alpha) * sigma * z + alpha * self.last(h)


def images(row):
    """Binary images, padded to 32×32."""
    return F.pad((torch.rand(row["batch"], 1, 28, 28) < 0.2).float(), (2, 2, 2, 2))


def nvae(row):
    """A step of the autoencoder under N(0, I)."""
    model, x = prepare(Nvae(row)), images(row)
    optimizer = torch.optim.Adamax(model.parameters(), lr=1e-3)

    def step():
        optimizer.zero_grad()
        z, negative_entropy, reconstruction = model(x)
        prior = (0.5 * z**2 + 0.5 * math.log(2 * math.pi)).sum((1, 2, 3))
        (reconstruction + negative_entropy + prior).mean().backward()
        optimizer.step()

    return step


def lsgm(row):
    """A joint step of autoencoder and prior: algorithm 1, one noise level for each item."""
    model, prior, x = prepare(Nvae(row)), prepare(Ncsnpp(row)), images(row)
    optimizers = [torch.optim.Adamax(model.parameters(), lr=1e-4), torch.optim.Adam(prior.parameters(), lr=1e-4)]

    def step():
        for optimizer in optimizers:
            optimizer.zero_grad()
        z, negative_entropy, reconstruction = model(x)
        # The geometric variance-preserving SDE with uniform t: its likelihood weight is constant.
        t = torch.rand(len(x))
        variance = (3e-5 * (0.999 / 3e-5) ** t)[:, None, None, None]
        noise = torch.randn_like(z)
        prediction = prior((1 - variance).sqrt() * z + variance.sqrt() * noise, t, variance.sqrt())
        cross_entropy = 0.5 * math.log(0.999 / 3e-5) * ((prediction - noise) ** 2).sum((1, 2, 3))
        (reconstruction + negative_entropy + cross_entropy).mean().backward()
        for optimizer in optimizers:
            optimizer.step()

    return step


def sample(row):
    """Latents from noise to data as the published sampler makes them: RK45 of SciPy on the host, the network on the device."""
    from scipy.integrate import solve_ivp

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    prior = Ncsnpp(row).eval()
    # The convolutions that end a path start at zero, as in NCSN++: both sides follow one and the same flow.
    ends = [prior.last[-1], *(m.out for m in prior.modules() if isinstance(m, Attention))]
    for end in ends + [m.convs[1] for m in prior.modules() if isinstance(m, Residual)]:
        nn.init.zeros_(end.weight), nn.init.zeros_(end.bias)
    prior = prepare(prior)
    shape = (row["batch"], row["latents"] * row["groups"], 8, 8)
    start = torch.randn(shape)
    spread = math.log(0.999 / 3e-5)

    def slope(t, flat):
        z = torch.as_tensor(flat.reshape(shape), dtype=torch.float32, device=start.device)
        variance = 3e-5 * (0.999 / 3e-5) ** t
        times = torch.full((len(z),), t, dtype=torch.float32, device=start.device)
        with torch.no_grad(), torch.autocast(start.device.type, enabled=False):
            noise = prior(z, times, torch.full((1, 1, 1, 1), math.sqrt(variance), device=start.device))
        beta = spread * variance / (1 - variance)
        return (-0.5 * beta * z + 0.5 * beta / math.sqrt(variance) * noise).cpu().numpy().ravel()

    def step():
        solve_ivp(slope, (1.0, 1e-5), start.cpu().numpy().ravel(), method="RK45", rtol=1e-5, atol=1e-5)

    return step
