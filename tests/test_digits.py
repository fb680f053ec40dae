"""Stages 1 and 2: networks, labels, pictures of digits, and the reading of MNIST.

exercises/check_2.py checks Maxout by hand; the script's own Maxout has to pass it, too.
"""

import gzip
import struct

import common

import keras
import pytest
import tensorflow as tf
from conftest import difference, same

SCRIPTS = ["01_gan_mnist.py", "02_cgan_mnist.py"]


@pytest.mark.parametrize("stage", ["gan", "cgan"])
def test_layers(stage, stage1, stage2, data_regression):
    """Broken if a layer of the GAN or the conditional GAN changes its name, shape or parameters.

    By hand: a dense layer from i to o units has i * o + o parameters; the first of stage 1 has
    100 * 128 + 128 = 12,928. Maxout(240, 5) on 784 pixels has 240 * 5 * (784 + 1) = 942,000.
    `python -m pytest tests/test_digits.py --force-regen` rewrites the golden table.
    """
    keras.utils.clear_session()  # numbers unnamed layers from the start
    noise, digit = keras.Input((100,), name="noise"), keras.Input((28, 28, 1), name="digit")
    label = keras.Input((10,), name="label")

    def table(network, *inputs, **training):
        graph = keras.Model(inputs, network.call(*inputs, **training))
        sizes = [("x".join(map(str, x.output.shape[1:])), x.count_params()) for x in graph.layers]
        rows = [f"{x.name} {shape} {count}" for x, (shape, count) in zip(graph.layers, sizes)]
        return {"layers": rows, "parameters": graph.count_params()}

    if stage == "gan":
        tables = table(stage1.Generator(), noise), table(stage1.Discriminator(), digit)
        assert [part["parameters"] for part in tables] == [579_728, 566_273]
    else:
        tables = [table(stage2.Generator(), noise, label)]
        tables.append(table(stage2.Discriminator(), digit, label, training=False))
        assert [part["parameters"] for part in tables] == [693_520, 1_224_351]
    data_regression.check(dict(zip(("generator", "discriminator"), tables)), f"test_{stage}_layers")


def test_discriminator_of_stage_2_hands_training_on(stage2):
    """Broken if the discriminator does not pass `training` on to all of its three Maxouts."""
    network, told = stage2.Discriminator(), []
    inputs = tf.zeros((1, 28, 28, 1)), tf.zeros((1, 10))
    network(*inputs, training=False)
    for maxout in (network.from_picture, network.from_label, network.hidden):
        maxout.dropout.call = lambda x, training: told.append(training) or x
    network(*inputs, training=True), network(*inputs, training=False)
    assert told == [True] * 3 + [False] * 3


def test_both_networks_hear_the_label(stage2):
    """Broken if the generator or the discriminator ignores the label."""
    model, noise = stage2.ConditionalGAN(), tf.random.stateless_normal((1, 100), (0, 0))
    labels = tf.one_hot([7], 10), tf.one_hot([3], 10)
    asked = [model.generator(noise, label, training=False) for label in labels]
    judged = [model.discriminator(asked[0], label, training=False) for label in labels]
    for one, other in (asked, judged):
        assert difference(one, other) > 1e-4


def test_digits_have_their_range(stage1, stage2):
    """Broken if a generator's pixels cannot come near -1 and 1, or can lie outside [-1, 1]."""
    noise = 100.0 * tf.random.stateless_normal((20, 100), (0, 0))
    label = tf.one_hot([1] * 20, 10)
    for digits in (stage1.Generator()(noise), stage2.Generator()(noise, label)):
        assert digits.shape == (20, 28, 28, 1)
        low, high = float(tf.reduce_min(digits)), float(tf.reduce_max(digits))
        assert -1.0 <= low < -0.9 and 0.9 < high <= 1.0


@pytest.mark.parametrize("script", SCRIPTS, ids=["stage1", "stage2"])
def test_first_losses(script, arguments_of_train, losses_regression):
    """Broken if any change alters the losses of the first three training steps in float32.

    The script's own main makes networks, optimisers and batches, with its defaults and seed 0. By
    hand, only the first row is known, and only roughly: a discriminator with random weights gives
    logits near 0, so each loss is near log 2 = 0.69. The other numbers are what the code gave
    after its digits had been inspected; `python -m pytest tests/test_digits.py --force-regen`
    rewrites them.
    """
    given = arguments_of_train(script)
    step, batches = tf.function(given.model.train_step), given.batches(first_step=0, last_step=3)
    rows = [{name: float(loss) for name, loss in step(batch).items()} for batch in batches]
    assert all(0.4 < loss < 1.4 for loss in rows[0].values())
    losses_regression(rows)


def test_labels_belong_to_digits():
    """Broken if shuffling separates a digit from its label.

    The mean of the zeros is a bright ring with a dark middle. The mean of the ones is bright in
    the middle, and dark at the left edge of that ring.
    """
    options = {"batch_size": 2000, "seed": 0, "first_step": 0, "last_step": 1}
    ((batch, labels),) = common.training_digits(*common.load_mnist(), **options)
    assert batch.shape == (2000, 28, 28, 1) and labels.shape == (2000, 10)
    assert float(tf.reduce_min(batch)) == -1.0 and float(tf.reduce_max(batch)) == 1.0
    assert same(tf.reduce_sum(labels, axis=1), 1.0)
    numbers = tf.argmax(labels, axis=1)
    zero, one = (tf.reduce_mean(batch[numbers == n], axis=0)[..., 0] for n in (0, 1))
    assert float(zero[14, 14]) < -0.9 and float(one[14, 14]) > 0.0
    assert float(one[14, 7]) < -0.9 and float(zero[14, 7]) > -0.5


@pytest.mark.parametrize("script", SCRIPTS)
def test_samples_are_of_one_noise(script, arguments_of_train, grids):
    """Broken if two epochs' samples use different noise, or two seeds' samples use the same.

    In stage 2 each row shows one digit, from 0 to 9, and each column has the same noise.
    """
    noises = []
    for out, seed in (("a", 0), ("b", 1)):
        given, asked = arguments_of_train(script, "--seed", seed, "--out", out), []

        def record(noise, *label, training, asked=asked):
            assert not training
            asked.append((noise, *label))
            return tf.zeros((len(noise), 28, 28, 1))

        object.__setattr__(given.model, "generator", record)
        given.draw("one.png"), given.draw("two.png")
        half = len(asked) // 2
        assert all(same(a[0], b[0]) for a, b in zip(asked[:half], asked[half:]))
        noises.append(asked[0][0])
        if script == SCRIPTS[1]:
            assert all(same(noise, noises[-1]) for noise, _ in asked)
            labels = [tf.argmax(label, axis=1) for _, label in asked[:half]]
            assert [[int(n) for n in row] for row in labels] == [[n] * 10 for n in range(10)]
            assert list(grids[-1][2]["row_titles"]) == list(range(10))
    assert [len(row) for row in grids[0][1]] == [10] * 10
    assert not bool(tf.reduce_any(noises[0] == noises[1]))
    assert abs(float(tf.math.reduce_std(noises[0])) - 1.0) < 0.1, "noise is N(0, 1)"


def idx(*shape, values, kind=8):
    return struct.pack(f">4B{len(shape)}i", 0, 0, kind, len(shape), *shape) + bytes(values)


def test_read_idx(tmp_path):
    """Broken if the header or the order of the values is misread."""
    path = tmp_path / "digits.gz"
    path.write_bytes(gzip.compress(idx(2, 2, 3, values=range(12))))
    wanted = tf.reshape(tf.cast(tf.range(12), tf.uint8), (2, 2, 3))
    assert same(common.read_idx(path, 2, 2, 3), wanted)


WHOLE = gzip.compress(idx(1000, values=[n % 10 for n in range(1000)]))
DAMAGE = {
    "missing": None,
    "empty": b"",
    "not gzip": b"labels",
    "cut": WHOLE[: len(WHOLE) // 2],
    "one bit flipped": WHOLE[:40] + bytes([WHOLE[40] ^ 1]) + WHOLE[41:],
    "pictures instead": gzip.compress(idx(10, 10, 10, values=[0] * 1000)),
    "wrong length": gzip.compress(idx(999, values=[0] * 1000)),
    "wrong data type": gzip.compress(idx(1000, values=[0] * 1000, kind=9)),
    "too short": gzip.compress(idx(1000, values=[0] * 999)),
    "too long": gzip.compress(idx(1000, values=[0] * 1001)),
    "part of a header": gzip.compress(b"\0\0\x08"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_idx(tmp_path, damage):
    """Broken if a damaged MNIST file is accepted, or the error does not name it."""
    path = tmp_path / "labels.gz"
    if DAMAGE[damage] is not None:
        path.write_bytes(DAMAGE[damage])
    with pytest.raises(common.UserError, match="labels.gz"):
        common.read_idx(path, 1000)
