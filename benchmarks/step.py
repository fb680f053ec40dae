"""How fast is a Pix2Pix step, compared with the plain way to write it and with PyTorch?

    python benchmarks/step.py [ROUNDS] [--torch PYTHON]        (make bench TORCH=PYTHON)

For batches of 1 and 4, in float32 and mixed_bfloat16, takes steps of three forms in turn:

plain  two tapes, Keras' layers and Adam in one @tf.function, as a tutorial has it;
ours   the step of stage 5 as `common.train` calls it, with its input pipeline;
torch  the same step in PyTorch, tuned (step_torch.py). Only with --torch, the interpreter of an
       environment of its own: `python -m venv torchenv && torchenv/bin/pip install torch`, then
       `--torch torchenv/bin/python`.

Prints a table: median seconds per step, and how many times faster than plain and torch it is.
"""

import argparse
import importlib
import itertools
import math
import multiprocessing
import select
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

import common  # noqa: E402
from common import PatchGAN, UNet, adversarial_loss  # noqa: E402

import keras  # noqa: E402
import tensorflow as tf  # noqa: E402

BATCHES = (1, 4)
PRECISIONS = ("float32", "mixed_bfloat16")
FORMS = ("plain", "ours", "torch")
PATIENCE = 100  # seconds to wait for PyTorch; bfloat16 takes minutes on CPUs without units for it
WARM_UP = 2  # rounds that trace and fill caches
PARAMETERS = [54_413_955, 2_768_641]  # trainable ones of the generator and the discriminator


def plain_step():
    """Returns a step as a tutorial would write it."""
    generator, discriminator = UNet(), PatchGAN()
    g_optimizer = keras.optimizers.Adam(2e-4, beta_1=0.5)
    d_optimizer = keras.optimizers.Adam(2e-4, beta_1=0.5)

    @tf.function
    def step(sketch, real):
        with tf.GradientTape() as g_tape, tf.GradientTape() as d_tape:
            fake = generator(sketch, training=True)
            real_logits = discriminator(sketch, real, training=True)
            fake_logits = discriminator(sketch, fake, training=True)
            g_loss = adversarial_loss(fake_logits, real=True)
            g_loss += 100.0 * tf.reduce_mean(tf.abs(real - fake))
            d_loss = adversarial_loss(real_logits, real=True)
            d_loss += adversarial_loss(fake_logits, real=False)
        g_variables, d_variables = generator.trainable_variables, discriminator.trainable_variables
        g_optimizer.apply_gradients(zip(g_tape.gradient(g_loss, g_variables), g_variables))
        d_optimizer.apply_gradients(zip(d_tape.gradient(d_loss, d_variables), d_variables))
        return g_loss, d_loss

    return step


def serve(pipe, batch, precision, form):
    """Takes a step whenever the pipe asks for one, and sends its seconds.

    It runs in a process of its own, because each form handles freed memory in its own way.
    """
    keras.config.set_dtype_policy(precision)
    paths = common.find_pairs("emoji")["train"]
    flags = {"batch_size": batch, "seed": 0, "direction": "AtoB", "augment": "jitter"}
    batches = common.training_pairs(paths, **flags, first_step=0, last_step=10**6)
    if form == "plain":
        common.BatchNorm = keras.layers.BatchNormalization
        common.Conv2D = keras.layers.Conv2D
        common.Conv2DTranspose = keras.layers.Conv2DTranspose
        plain, batches = plain_step(), iter(batches)

        def step():
            return [float(loss) for loss in plain(*next(batches))]
    else:
        common.tune_processor()
        model = importlib.import_module("05_pix2pix_train").Pix2Pix()
        model.generator_optimizer = common.adam(model.generator, 2e-4, 0.5)
        model.discriminator_optimizer = common.adam(model.discriminator, 2e-4, 0.5)
        step = common.make_train_function(model, batches)

    while pipe.recv():
        started = time.perf_counter()
        step()
        pipe.send(time.perf_counter() - started)


class TorchPipe:
    """step_torch.py in an interpreter that has PyTorch; behaves like the other processes' pipes.

    Raises SystemExit if PyTorch is missing, or if the parameter counts differ from ours.
    """

    def __init__(self, python, batch, precision):
        command = [python, HERE / "step_torch.py", str(batch), precision]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(command, **pipes)
        version, *counts = self.process.stdout.readline().split() or ["nothing"]
        if [int(count) for count in counts] != PARAMETERS:
            sys.exit(f"--torch {python}: answers {version}, {counts} parameters, not {PARAMETERS}")
        print(f"batch {batch}, {precision}: PyTorch {version}")

    def send(self, more):
        if more and self.process.poll() is None:
            print(file=self.process.stdin, flush=True)
        else:
            self.process.kill()

    def recv(self):
        """Returns the seconds of a step; infinite if it takes too long."""
        if select.select([self.process.stdout], [], [], PATIENCE)[0]:
            answer = self.process.stdout.readline().split()
            if answer:
                return float(answer[0])
        self.process.kill()
        return math.inf


def measure(batch, rounds, torch):
    """Runs all forms in turn; returns {(precision, form): median seconds of a step}."""
    context, pipes, taken = multiprocessing.get_context("spawn"), {}, defaultdict(list)
    for precision, form in itertools.product(PRECISIONS, FORMS):
        if form != "torch":
            pipes[precision, form], there = context.Pipe()
            arguments = (there, batch, precision, form)
            context.Process(target=serve, args=arguments, daemon=True).start()
        elif torch:
            pipes[precision, form] = TorchPipe(torch, batch, precision)
    for number in range(-WARM_UP, rounds):
        for name, pipe in pipes.items():
            pipe.send(True)
            seconds = pipe.recv()
            if number >= 0:
                taken[name].append(seconds)
    for pipe in pipes.values():
        pipe.send(False)
    return {name: statistics.median(times) for name, times in taken.items()}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("rounds", type=int, nargs="?", default=7)
    parser.add_argument("--torch", metavar="PYTHON", help="an interpreter that has PyTorch")
    args = parser.parse_args()
    print(f"{'batch':>6}{'precision':>16}{'form':>7}{'seconds':>9}{'by plain':>10}{'by torch':>10}")
    for batch in BATCHES:
        median = measure(batch, args.rounds, args.torch)
        for (precision, form), taken in median.items():
            plain = median[precision, "plain"] / taken
            torch = median.get((precision, "torch"), math.nan) / taken
            print(f"{batch:6}{precision:>16}{form:>7}{taken:9.3f}{plain:10.2f}{torch:10.2f}")


if __name__ == "__main__":
    main()
