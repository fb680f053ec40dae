"""Is an epoch of stages 1 and 2 as fast as it can be written? Against the plain course form.

    python benchmarks/digits.py [rounds]

Plain: a shuffled and batched dataset, one @tf.function step called from a Python loop,
losses fetched every 100 steps. Ours: the same step as `train` runs it. One process, epochs
interleaved, medians. The last column is what an epoch costs if only the arithmetic took
time: the same step on one batch that is already there, again and again, inside one
tf.function.
"""

import importlib
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from common import adam, load_mnist, make_train_function, training_digits  # noqa: E402

import keras  # noqa: E402
import tensorflow as tf  # noqa: E402

BATCH, STEPS, STEPS_AT_ONCE = 128, 468, 39


def seconds(run):
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def forms(make_model, digits, labels):
    """Returns {form: function that runs one epoch}."""

    def new_model():
        keras.utils.set_random_seed(0)
        model = make_model()
        model.set_optimizers(adam(2e-4, 0.5), adam(2e-4, 0.5))
        return model

    plain, bare = new_model(), new_model()
    flags = {"batch_size": BATCH, "seed": 0, "first_step": 0, "last_step": 10**6}
    take_steps = make_train_function(new_model(), training_digits(digits, labels, **flags))
    pictures = tf.cast(digits, tf.float32) / 127.5 - 1.0
    one_hot = tf.one_hot(labels, 10)
    dataset = tf.data.Dataset.from_tensor_slices((pictures, one_hot)).shuffle(60000)
    dataset = dataset.batch(BATCH, drop_remainder=True)
    step = tf.function(plain.train_step)
    one_batch = pictures[:BATCH], one_hot[:BATCH]

    def plain_epoch():
        for n, batch in enumerate(dataset):
            losses = step(batch)
            if n % 100 == 0:
                [float(loss) for loss in losses.values()]

    def our_epoch():
        for _ in range(0, STEPS, STEPS_AT_ONCE):
            take_steps(STEPS_AT_ONCE)

    @tf.function
    def bare_epoch():
        for _ in tf.range(STEPS):
            bare.train_step(one_batch)

    return {"plain": plain_epoch, "ours": our_epoch, "arithmetic": bare_epoch}


def main():
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    digits, labels = load_mnist()
    stages = {
        "GAN": importlib.import_module("01_gan_mnist").GAN,
        "cGAN": importlib.import_module("02_cgan_mnist").ConditionalGAN,
    }
    print(f"{'seconds an epoch':18}{'plain':>8}{'ours':>8}{'ratio':>8}{'arithmetic':>12}")
    for name, make_model in stages.items():
        epochs = forms(make_model, digits, labels)
        for run in epochs.values():
            run()  # traces, fills caches
        times = {form: [] for form in epochs}
        for _ in range(rounds):
            for form, run in epochs.items():
                times[form].append(seconds(run))
        plain, ours, bare = (statistics.median(t) for t in times.values())
        print(f"{name:18}{plain:8.2f}{ours:8.2f}{plain / ours:7.2f}x{bare:12.2f}")


if __name__ == "__main__":
    main()
