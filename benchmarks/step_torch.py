"""The step of stage 5 in PyTorch, as an expert would write it. `step.py --torch` runs this file.

    PYTHON benchmarks/step_torch.py BATCH float32|mixed_bfloat16

For each line on standard input it takes a step and prints its seconds and page faults. Before
the first step it prints PyTorch's version and the parameter counts of both networks. It runs
in an interpreter of its own, which needs PyTorch but not TensorFlow.

Tuned: channels_last, the fused Adam, autocast for bfloat16, a thread on each core, and one
pass over the generated picture for both losses, as in stage 5. The pictures are random and
already in memory, while ours are read, decoded and augmented during the steps: this favours
PyTorch. It does not use torch.compile: on 2 cores of a Xeon with AMX, with both networks
compiled, a step took 4 to 6% longer, but 7% less for batch 1 in bfloat16.
"""

import os
import resource
import sys
import time
import warnings

warnings.filterwarnings("ignore", "Failed to initialize NumPy")  # NumPy is not needed here

import torch  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn.functional import binary_cross_entropy_with_logits, l1_loss  # noqa: E402


def encode_block(channels, filters, stride=2, batchnorm=True):
    """4x4 convolution, batchnorm, LeakyReLU."""
    layers = [nn.Conv2d(channels, filters, 4, stride, padding=1, bias=False)]
    if batchnorm:
        layers.append(nn.BatchNorm2d(filters, eps=1e-5))
    return nn.Sequential(*layers, nn.LeakyReLU(0.2, inplace=True))


def decode_block(channels, filters, dropout=False):
    """4x4 transposed convolution to twice the size, batchnorm, dropout, ReLU."""
    layers = [nn.ConvTranspose2d(channels, filters, 4, 2, padding=1, bias=False)]
    layers.append(nn.BatchNorm2d(filters, eps=1e-5))
    if dropout:
        layers.append(nn.Dropout(0.5))
    return nn.Sequential(*layers, nn.ReLU(inplace=True))


class UNet(nn.Module):
    """(B, 3, 256, 256) -> (B, 3, 256, 256), the layers of common.UNet."""

    def __init__(self):
        super().__init__()
        sizes = [3, 64, 128, 256, 512, 512, 512, 512, 512]
        self.encoder = nn.ModuleList(
            encode_block(sizes[n], sizes[n + 1], batchnorm=n not in {0, 7}) for n in range(8)
        )
        filters = [512, 512, 512, 512, 256, 128, 64]
        channels = [512] + [2 * count for count in filters]  # with the skips
        self.decoder = nn.ModuleList(
            decode_block(channels[n], filters[n], dropout=n < 3) for n in range(7)
        )
        self.to_picture = nn.ConvTranspose2d(channels[-1], 3, 4, 2, padding=1)

    def forward(self, x):
        skips = []
        for block in self.encoder:
            x = block(x)
            skips.append(x)
        for block, skip in zip(self.decoder, reversed(skips[:-1])):
            x = torch.cat([block(x), skip], dim=1)
        return torch.tanh(self.to_picture(x))


class PatchGAN(nn.Module):
    """Two of (B, 3, 256, 256) -> (B, 1, 30, 30), the layers of common.PatchGAN."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            encode_block(6, 64, batchnorm=False),
            encode_block(64, 128),
            encode_block(128, 256),
            encode_block(256, 512, stride=1),
            nn.Conv2d(512, 1, 4, 1, padding=1),
        )

    def forward(self, condition, picture):
        return self.layers(torch.cat([condition, picture], dim=1))


def make_network(kind):
    """Returns a network with the paper's weights, and its optimiser."""
    network = kind().to(memory_format=torch.channels_last)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(layer.weight, 0.0, 0.02)
    return network, torch.optim.Adam(network.parameters(), 2e-4, betas=(0.5, 0.999), fused=True)


def adversarial_loss(logits, real):
    """Mean cross-entropy of logits against the answer real or fake."""
    logits = logits.float()
    return binary_cross_entropy_with_logits(logits, torch.full_like(logits, float(real)))


def make_step(batch, precision):
    """Returns a function that takes a step, and the trainable parameters of both networks."""
    generator, g_optimizer = make_network(UNet)
    discriminator, d_optimizer = make_network(PatchGAN)
    sketch, real = (
        (2.0 * torch.rand(batch, 3, 256, 256) - 1.0).to(memory_format=torch.channels_last)
        for _ in range(2)
    )

    def losses(sketch, real):
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "mixed_bfloat16"):
            fake = generator(sketch)
            # The discriminator sees a detached copy; its gradient is passed on to the generator.
            shown = fake.detach().requires_grad_()
            real_logits, fake_logits = discriminator(sketch, real), discriminator(sketch, shown)
            g_loss = adversarial_loss(fake_logits, True)
            d_loss = adversarial_loss(real_logits, True) + adversarial_loss(fake_logits, False)
            return fake, shown, g_loss, d_loss, 100.0 * l1_loss(fake.float(), real)

    def step():
        g_optimizer.zero_grad(set_to_none=True)
        d_optimizer.zero_grad(set_to_none=True)
        fake, shown, g_loss, d_loss, l1 = losses(sketch, real)
        (of_shown,) = torch.autograd.grad(g_loss, shown, retain_graph=True)
        torch.autograd.backward([fake, l1], [of_shown, None])
        d_loss.backward(inputs=list(discriminator.parameters()))
        g_optimizer.step()
        d_optimizer.step()
        return [loss.item() for loss in (g_loss, d_loss, l1)]

    return step, [
        sum(p.numel() for p in network.parameters()) for network in (generator, discriminator)
    ]


def main():
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    step, parameters = make_step(int(sys.argv[1]), sys.argv[2])
    print(torch.__version__, *parameters, flush=True)
    for _ in sys.stdin:
        before, started = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, time.perf_counter()
        step()
        seconds = time.perf_counter() - started
        print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before, flush=True)


if __name__ == "__main__":
    main()
