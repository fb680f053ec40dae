"""How fast is a Pix2Pix step, against the plain way to write it and against the machine's limit?

    python benchmarks/step.py [rounds] [--torch PYTHON]        (make bench TORCH=PYTHON)

For batch 1 and 4, float32 and mixed_bfloat16, in one run, interleaved, medians:

plain  two tapes, Keras' layers and Adam in one @tf.function, as a tutorial has it, and the
       C library's memory as it comes;
ours   the step of stage 5 as `common.train` calls it, with its input pipeline;
torch  the same step in PyTorch, tuned: see step_torch.py. Only with --torch, the interpreter
       of an environment of its own: `python -m venv torchenv && torchenv/bin/pip install
       torch`, then `--torch torchenv/bin/python`. Nothing else here needs it;
limit  the time that the arithmetic and the optimisers' memory traffic take at the rates
       measured here: FLOPs counted from the layers over the rate of a matrix product in
       that precision, plus the bytes that Adam reads and writes over the rate of a copy.

Then where the time goes, for float32: the same networks, optimisers and convolutions one by
one, with the share of the matrix product's rate that the convolutions reach.

Writes step.csv and step.png beside the table, under runs/benchmarks/.
"""

import csv
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

try:
    import resource
except ImportError:  # Windows, which does not tell the page faults
    resource = None

sys.path.insert(0, str(Path(__file__).parent.parent))

import common  # noqa: E402
from common import (  # noqa: E402
    PatchGAN,
    UNet,
    adam,
    device_name,
    discriminator_losses,
    find_pairs,
    generator_loss,
    keep_memory,
    make_train_function,
    save_figure,
    training_pairs,
)

import keras  # noqa: E402
import tensorflow as tf  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

BATCHES = (1, 4)
PRECISIONS = ("float32", "mixed_bfloat16")
FORMS = ("plain", "ours", "torch")
PATIENCE = 100  # seconds for a step of PyTorch: its bfloat16 takes minutes where a processor has none
SIZE = 2048  # of the matrices multiplied
COPIED = 2**26  # floats
ADAM_FLOATS = 7  # per parameter: read gradient, parameter and both moments; write the last three


def seconds(work):
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def convolutions(network, *inputs):
    """Returns [layer, shape of its input, multiply-adds] of each convolution, for these inputs."""
    found = []

    def counting(layer):
        call = layer.call

        def counted(x):
            y = call(x)
            grid = x if isinstance(layer, keras.layers.Conv2DTranspose) else y  # the smaller one
            found.append((layer, x.shape, grid.shape[1] * grid.shape[2] * layer.kernel.shape.num_elements()))
            return y

        return counted

    for layer in network._flatten_layers():
        if isinstance(layer, keras.layers.Conv2D | keras.layers.Conv2DTranspose):
            layer.call = counting(layer)
    network(*inputs, training=False)
    for layer, *_ in found:
        del layer.call
    return found


def count():
    """Returns the convolutions of both networks on one picture, and their trainable parameters."""
    picture = tf.zeros((1, 256, 256, 3))
    generator, discriminator = UNet(), PatchGAN()
    generator(picture, training=False)
    discriminator(picture, picture, training=False)
    parameters = [
        sum(math.prod(variable.shape) for variable in network.trainable_variables)
        for network in (generator, discriminator)
    ]
    return convolutions(generator, picture), convolutions(discriminator, picture, picture), parameters


def forward_flops(convolutions, batch=1):
    """Returns the FLOPs of a network's forward pass."""
    return 2 * batch * sum(multiplications for *_, multiplications in convolutions)


def plain_step():
    """Returns a step as one writes it first."""
    generator, discriminator = UNet(), PatchGAN()
    g_optimizer = keras.optimizers.Adam(2e-4, beta_1=0.5)
    d_optimizer = keras.optimizers.Adam(2e-4, beta_1=0.5)

    @tf.function
    def step(sketch, real):
        with tf.GradientTape() as g_tape, tf.GradientTape() as d_tape:
            fake = generator(sketch, training=True)
            real_logits = discriminator(sketch, real, training=True)
            fake_logits = discriminator(sketch, fake, training=True)
            g_loss = generator_loss(fake_logits) + 100.0 * tf.reduce_mean(tf.abs(real - fake))
            d_loss = sum(discriminator_losses(real_logits, fake_logits))
        g_variables, d_variables = generator.trainable_variables, discriminator.trainable_variables
        g_optimizer.apply_gradients(zip(g_tape.gradient(g_loss, g_variables), g_variables))
        d_optimizer.apply_gradients(zip(d_tape.gradient(d_loss, d_variables), d_variables))
        return g_loss, d_loss

    return step


def page_faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt if resource else 0


def serve(pipe, batch, precision, form):
    """Runs a step whenever asked, and answers with its seconds and page faults.

    In a process of its own, because how memory is kept is a part of what is measured.
    """
    keras.config.set_dtype_policy(precision)
    flags = {"batch_size": batch, "seed": 0, "direction": "AtoB", "augment": "jitter"}
    batches = training_pairs(find_pairs("openmoji")["train"], **flags, first_step=0, last_step=10**6)
    if form == "plain":
        common.BatchNorm = keras.layers.BatchNormalization
        common.Conv2D, common.Conv2DTranspose = keras.layers.Conv2D, keras.layers.Conv2DTranspose
        plain, batches = plain_step(), iter(batches)

        def step():
            return [float(loss) for loss in plain(*next(batches))]
    else:
        keep_memory()
        model = importlib.import_module("05_pix2pix_train").Pix2Pix()
        model.set_optimizers(adam(2e-4, 0.5), adam(2e-4, 0.5))
        take_steps = make_train_function(model, batches)

        def step():
            return take_steps(1)

    while pipe.recv():
        before = page_faults()
        taken = seconds(step)
        pipe.send((taken, page_faults() - before))


class TorchPipe:
    """step_torch.py in an interpreter that has PyTorch, asked as the other processes are.

    Raises:
        SystemExit: PyTorch is not there, or its networks have other parameters than ours.
    """

    def __init__(self, python, batch, precision, parameters):
        command = [python, Path(__file__).with_name("step_torch.py"), str(batch), precision]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        version, *counts = self.process.stdout.readline().split() or ["nothing"]
        if [int(count) for count in counts] != parameters:
            sys.exit(f"--torch {python}: answers {version}, with {counts} parameters, not {parameters}")
        print(f"batch {batch}, {precision}: PyTorch {version}, {' + '.join(counts)} parameters, as ours")

    def send(self, more):
        if more and self.process.poll() is None:
            print(file=self.process.stdin, flush=True)
        else:
            self.process.kill()

    def recv(self):
        """Returns the seconds and page faults of a step; infinite seconds if it takes too long."""
        if select.select([self.process.stdout], [], [], PATIENCE)[0]:
            answer = self.process.stdout.readline().split()
            if answer:
                return float(answer[0]), int(answer[1])
        self.process.kill()
        return math.inf, 0


def start_forms(batch, torch, parameters):
    """Starts the processes of a batch size, 2 GB each; returns {(batch, precision, form): pipe}.

    Args:
        torch: an interpreter that has PyTorch, or None.
        parameters: trainable ones of the generator and of the discriminator.
    """
    context, pipes = multiprocessing.get_context("spawn"), {}
    for precision, form in itertools.product(PRECISIONS, FORMS):
        if form != "torch":
            pipes[batch, precision, form], there = context.Pipe()
            context.Process(target=serve, args=(there, batch, precision, form), daemon=True).start()
        elif torch:
            pipes[batch, precision, form] = TorchPipe(torch, batch, precision, parameters)
    return pipes


def parts(batch, generators, discriminators):
    """Returns {name: (work, FLOPs)}: the step part by part, in float32.

    Args:
        generators, discriminators: the networks' convolutions, as `count` returns them.
    """
    g, d = forward_flops(generators, batch), forward_flops(discriminators, batch)
    sketch = tf.random.stateless_uniform((batch, 256, 256, 3), (0, 1), -1.0, 1.0)
    generator, discriminator = UNet(), PatchGAN()
    generator(sketch, training=False)
    discriminator(sketch, sketch, training=False)

    @tf.function
    def forward():
        return generator(sketch, training=True)

    @tf.function
    def generator_gradients():
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.abs(generator(sketch, training=True)))
        return tape.gradient(loss, generator.trainable_variables)

    @tf.function
    def discriminator_gradients():
        with tf.GradientTape() as tape:
            loss = generator_loss(discriminator(sketch, sketch, training=True))
        return tape.gradient(loss, discriminator.trainable_variables)

    def updates(optimizer):
        optimizer.build(generator.trainable_variables)
        gradients = [tf.ones(v.shape) for v in generator.trainable_variables]
        return tf.function(lambda: optimizer.apply(gradients))

    # Forward and backward are three times forward: the gradients of the weights and of the input.
    works = {
        "generator, forward": (forward, g),
        "generator, forward and backward": (generator_gradients, 3 * g),
        "discriminator, one pair, both ways": (discriminator_gradients, 3 * d),
        "generator's Adam, plain": (updates(keras.optimizers.Adam(0.0)), 0),
        "generator's Adam, compiled": (updates(adam(0.0, 0.5)), 0),
    }
    for network, found in (("generator", generators), ("discriminator", discriminators)):
        for layer, (_, *shape), multiplications in found:
            name = f"{network}, {layer.path.split('/')[1]} on {'x'.join(map(str, shape))}"
            works[name] = both_ways(layer, (batch, *shape)), 3 * 2 * batch * multiplications
    return works


def both_ways(layer, shape):
    """Returns a work: a convolution alone, its output and both its gradients."""
    x = tf.random.stateless_uniform(shape, (0, 2), -1.0, 1.0)

    @tf.function
    def work():
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x)
        return y, tape.gradient(y, [x, layer.kernel.value], output_gradients=y)

    return work.get_concrete_function()


def machine():
    """Returns works whose time gives the rates of a matrix product and of a copy."""
    works = {}
    for name, dtype in (("float32", tf.float32), ("mixed_bfloat16", tf.bfloat16)):
        a = tf.cast(tf.random.stateless_uniform((SIZE, SIZE), (0, 0)), dtype)
        product = tf.function(lambda a: tf.reduce_sum(tf.matmul(a, a)))
        works[name] = lambda a=a, product=product: float(product(a))
    source, target = tf.Variable(tf.zeros(COPIED)), tf.Variable(tf.zeros(COPIED))
    copy = tf.function(lambda: target.assign(source * 2.0))  # reads and writes each float
    works["copy"] = copy
    return works


def measure(rounds, generators, discriminators, parameters, torch):
    """Runs everything in turn, so often.

    Returns:
        Medians: {name: seconds} of all works, {name: FLOPs} of the parts, and of the
        forms {name: page faults}. Names of parts begin with the batch size.
    """
    keep_memory()
    rates, flops, answers = machine(), {}, defaultdict(list)
    for batch in BATCHES:
        asked = {(batch, name): lambda work=work: (seconds(work), 0) for name, work in rates.items()}
        for name, (work, count) in parts(batch, generators, discriminators).items():
            asked[batch, name], flops[batch, name] = lambda work=work: (seconds(work), 0), count
        pipes = start_forms(batch, torch, parameters)
        for name, pipe in pipes.items():
            asked[name] = lambda pipe=pipe: pipe.send(True) or pipe.recv()
        for number in range(-2, rounds):
            for name, ask in asked.items():
                answer = ask()
                if number >= 0:  # the first two traced and filled caches
                    answers[name].append(answer)
        for pipe in pipes.values():
            pipe.send(False)
        for process in multiprocessing.active_children():
            process.join()
    taken, faults = ({k: statistics.median(v[n] for v in vs) for k, vs in answers.items()} for n in (0, 1))
    return taken, flops, faults


def main():
    parser = common.Parser(__doc__)
    parser.add_argument("rounds", type=int, nargs="?", default=7)
    parser.add_argument("--torch", metavar="PYTHON", help="an interpreter that has PyTorch")
    args = parser.parse_args()
    generators, discriminators, parameters = count()
    # The generator forward and backward: 3 passes. The discriminator: 3 on the real pair, 3 on
    # the generated one, and once more the gradient of the input, which the generator learns from.
    flops = 3 * forward_flops(generators) + 7 * forward_flops(discriminators)
    median, shares, faults = measure(args.rounds, generators, discriminators, parameters, args.torch)
    parameters = sum(parameters)

    # The machine may be busier in one hour than in the next: each batch size has rates of its own.
    rate = {(b, precision): 2 * SIZE**3 / median[b, precision] for b in BATCHES for precision in PRECISIONS}
    bandwidth = {batch: 2 * 4 * COPIED / median[batch, "copy"] for batch in BATCHES}
    traffic = {batch: ADAM_FLOATS * 4 * parameters / bandwidth[batch] for batch in BATCHES}
    print(f"{device_name()}, TensorFlow {tf.__version__}")
    print(f"a step on one picture: {flops / 1e9:.1f} GFLOP; Adam: {parameters / 1e6:.1f} million parameters")
    for batch in BATCHES:
        products = ", ".join(f"{precision} {rate[batch, precision] / 1e9:.0f}" for precision in PRECISIONS)
        print(
            f"beside batch {batch}: matrix product {products} GFLOP/s, copy {bandwidth[batch] / 1e9:.1f} GB/s"
        )
    print()

    rows = []
    for batch, precision in itertools.product(BATCHES, PRECISIONS):
        limit = batch * flops / rate[batch, precision] + traffic[batch]
        for form in [form for form in FORMS if (batch, precision, form) in median]:
            taken = median[batch, precision, form]
            rows.append(
                {
                    "batch": batch,
                    "precision": precision,
                    "form": form,
                    "seconds a step": taken,
                    "pictures a second": batch / taken,
                    "by plain": median[batch, precision, "plain"] / taken,
                    "by torch": median.get((batch, precision, "torch"), math.nan) / taken,
                    "by float32": median[batch, "float32", form] / taken,
                    "of the limit": limit / taken,
                    "page faults": int(faults[batch, precision, form]),
                }
            )
    heads = list(rows[0])
    print("".join(f"{head:>18}" for head in heads))
    for row in rows:
        print("".join(f"{v:>18.3f}" if isinstance(v, float) else f"{v:>18}" for v in row.values()))
    print(f"\n{'float32, seconds':46}" + "".join(f"{f'batch {batch}':>10}{'rate':>7}" for batch in BATCHES))
    for name in [name for batch, name in shares if batch == BATCHES[0]]:
        cells = ""
        for batch in BATCHES:
            taken = median[batch, name]
            share = shares[batch, name] / taken / rate[batch, "float32"]
            cells += f"{taken:10.4f}" + (f"{share:7.0%}" if share else f"{'':7}")
        print(f"{name:46}{cells}")
    folder = Path("runs/benchmarks")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "step.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, heads)
        writer.writeheader()
        writer.writerows(rows)
    draw(rows, median, folder / "step.png")
    print(f"\n{folder / 'step.csv'}\n{folder / 'step.png'}")


def draw(rows, median, path):
    """Draws the seconds a picture of each form, with the limit as a line."""
    figure = Figure((7, 3.6), layout="constrained")
    axis = figure.subplots()
    rows = [row for row in rows if row["seconds a step"] < math.inf]
    labels = [
        f"batch {row['batch']}\n{row['precision'].removeprefix('mixed_')}\n{row['form']}" for row in rows
    ]
    taken = [row["seconds a step"] / row["batch"] for row in rows]
    colours = {"plain": "0.7", "ours": "tab:blue", "torch": "tab:orange"}
    bars = axis.bar(range(len(rows)), taken, color=[colours[row["form"]] for row in rows])
    axis.bar_label(bars, [f"{t:.2f}" for t in taken], fontsize=8)
    limits = [t * row["of the limit"] for t, row in zip(taken, rows)]
    axis.hlines(limits, [n - 0.4 for n in range(len(rows))], [n + 0.4 for n in range(len(rows))], color="k")
    axis.set_xticks(range(len(rows)), labels, fontsize=7)
    axis.set(title="Seconds a picture; black: the machine's limit", ylabel="s")
    save_figure(figure, path)


if __name__ == "__main__":
    main()
