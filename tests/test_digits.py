"""Stages 1 and 2: networks, Maxout, labels, and the reading of MNIST."""

import gzip
import math
import struct

import common

import keras
import pytest
import tensorflow as tf


def shapes(network, *inputs, **training):
    """Name, shape and parameters of each layer, as plain data for a golden file."""
    graph = keras.Model(inputs, network.call(*inputs, **training))
    rows = [f"{x.name} {'x'.join(map(str, x.output.shape[1:]))} {x.count_params()}" for x in graph.layers]
    return {"layers": rows, "parameters": graph.count_params()}


@pytest.fixture
def fresh_names():
    keras.utils.clear_session()  # numbers unnamed layers from the start
    return (
        keras.Input((100,), name="noise"),
        keras.Input((28, 28, 1), name="digit"),
        keras.Input((10,), name="label"),
    )


def test_gan_layers(stage1, fresh_names, data_regression):
    """Broken if a layer of stage 1 changes: 579,728 and 566,273 parameters.

    By hand: a dense layer of i to o units has i o + o; 100 * 128 + 128 = 12,928 is the first. The
    golden table is written anew by `python -m pytest tests/test_digits.py --force-regen`.
    """
    noise, digit, _ = fresh_names
    data_regression.check(
        {
            "generator": shapes(stage1.Generator(), noise),
            "discriminator": shapes(stage1.Discriminator(), digit),
        }
    )


def test_cgan_layers(stage2, fresh_names, data_regression):
    """Broken if a layer of stage 2 changes: 693,520 and 1,224,351 parameters.

    By hand: Maxout(240, 5) of 784 pixels has 240 * 5 * (784 + 1) = 942,000. The golden table is written
    anew by `python -m pytest tests/test_digits.py --force-regen`.
    """
    noise, digit, label = fresh_names
    data_regression.check(
        {
            "generator": shapes(stage2.Generator(), noise, label),
            "discriminator": shapes(stage2.Discriminator(), digit, label, training=False),
        }
    )


def test_maxout_by_hand(stage2):
    """Broken if Maxout takes the maximum over the wrong axis, or puts an activation inside.

    2 units of 3 pieces of x = (1, -2), the columns of the kernel being
    (1, 0), (0, 1), (-1, 0) for the first unit and (0, 2), (-3, -1), (-4, 0) for the
    second, bias 0 but -0.5 for the last: the maps are 1, -2, -1 and -4, -1, -4.5, so the
    largest are 1 and -1. A ReLU inside would make the second 0.
    """
    maxout = stage2.Maxout(2, 3)
    x = tf.constant([[1.0, -2.0]])
    maxout(x, training=False)
    maxout.maps.kernel.assign([[1, 0, -1, 0, -3, -4], [0, 1, 0, 2, -1, 0]])
    maxout.maps.bias.assign([0, 0, 0, 0, 0, -0.5])
    assert [float(v) for v in maxout(x, training=False)[0]] == [1.0, -1.0]


def test_maxout_drops_maps_in_training(stage2):
    """Broken if dropout is missing in training, or acts in inference.

    Of 5 maps that are all 1, half are kept and doubled: the largest is 2, or 0 when all
    5 are dropped, which happens to 1 unit in 32.
    """
    maxout = stage2.Maxout(4000, 5)
    x = tf.ones((1, 1))
    maxout(x, training=False)
    maxout.maps.kernel.assign(tf.ones((1, 20000)))
    assert set(map(float, tf.unique(maxout(x, training=False)[0]).y)) == {1.0}
    trained = maxout(x, training=True)[0]
    assert set(map(float, tf.unique(trained).y)) == {0.0, 2.0}
    assert float(tf.reduce_mean(tf.cast(trained == 0.0, tf.float32))) == pytest.approx(1 / 32, abs=0.02)


def digit_batches(count, batch_size=128):
    digits, labels = common.load_mnist()
    return list(
        common.training_digits(digits, labels, batch_size=batch_size, seed=0, first_step=0, last_step=count)
    )


@pytest.mark.parametrize(
    "script", [pytest.param(f"0{n}_{name}_mnist.py", id=f"stage{n}") for n, name in ((1, "gan"), (2, "cgan"))]
)
def test_first_losses(script, call_main, monkeypatch, losses_regression):
    """Broken if anything between the command, the files and the losses changes: the first 3 steps, float32.

    The script's own main makes networks, optimisers and batches, with its defaults and seed 0. By hand
    one knows only the first row, and that roughly: a discriminator of random weights gives logits near
    0, so each loss is near log 2 = 0.69. The other numbers are what the code gave when its digits had
    been looked at; `python -m pytest tests/test_digits.py --force-regen` writes them anew.
    """
    rows = []

    def train(model, run, batches, args, **rest):
        step = tf.function(model.train_step)
        for batch in batches(first_step=0, last_step=3):
            rows.append({name: float(loss) for name, loss in step(batch).items()})
        raise common.UserError("far enough")

    monkeypatch.setattr(common, "train", train)
    assert "far enough" in call_main(script).stderr
    assert all(0.4 < loss < 1.4 for loss in rows[0].values())
    losses_regression(rows)


def test_labels_belong_to_digits():
    """Broken if shuffling separates a digit from its label.

    The mean of the digits labelled 1 is dark at the left edge of the ring that the mean of
    the zeros is bright on; the other way round in the middle.
    """
    (batch, labels), *_ = digit_batches(1, batch_size=2000)
    assert batch.shape == (2000, 28, 28, 1) and labels.shape == (2000, 10)
    assert float(tf.reduce_min(batch)) == -1.0 and float(tf.reduce_max(batch)) == 1.0
    assert bool(tf.reduce_all(tf.reduce_sum(labels, axis=1) == 1.0))
    zero, one = (tf.reduce_mean(tf.boolean_mask(batch, labels[:, n] == 1.0), axis=0)[..., 0] for n in (0, 1))
    assert float(zero[14, 14]) < -0.9 < 0.0 < float(one[14, 14])
    assert float(one[14, 7]) < -0.9 < -0.5 < float(zero[14, 7])


def test_both_networks_hear_the_label(stage2):
    """Broken if the generator or the discriminator ignores the label."""
    model = stage2.ConditionalGAN()
    noise = tf.random.stateless_normal((1, 100), (0, 0))
    seven, three = tf.one_hot([7], 10), tf.one_hot([3], 10)
    asked = [model.generator(noise, label, training=False) for label in (seven, three)]
    assert float(tf.reduce_max(tf.abs(asked[0] - asked[1]))) > 1e-3
    judged = [model.discriminator(asked[0], label, training=False) for label in (seven, three)]
    assert abs(float(judged[0][0, 0] - judged[1][0, 0])) > 1e-4


@pytest.mark.parametrize("wrong_labels", [True, False])
def test_step_hands_out_the_right_labels(stage2, wrong_labels):
    """Broken if the step gives the wrong label to a network, or a right one as a wrong one."""
    (batch,) = digit_batches(1)
    real, label = batch
    model, shown = stage2.ConditionalGAN(wrong_labels), []
    model.set_optimizers(keras.optimizers.SGD(0.0), keras.optimizers.SGD(0.0))
    draw, judge = model.generator.call, model.discriminator.call

    def record_draw(noise, label, **_):
        shown.append(("drawn", label))
        return draw(noise, label)

    def record_judge(picture, label, training):
        shown.append(("real" if bool(tf.reduce_all(picture == real)) else "fake", label))
        return judge(picture, label, training)

    model.generator.call, model.discriminator.call = record_draw, record_judge
    losses = model.train_step(batch)
    assert ("d_wrong" in losses) == wrong_labels
    assert [kind for kind, _ in shown] == ["drawn", "real", "fake"] + ["real"] * wrong_labels
    assert all(bool(tf.reduce_all(seen == label)) for _, seen in shown[:3])
    if wrong_labels:
        wrong = shown[3][1]
        assert bool(tf.reduce_all(tf.reduce_sum(wrong, axis=1) == 1.0))
        assert not bool(tf.reduce_any(tf.argmax(wrong, axis=1) == tf.argmax(label, axis=1)))


def idx(magic, shape, values):
    return struct.pack(f">{1 + len(shape)}i", magic, *shape) + bytes(values)


def test_read_idx(tmp_path):
    """Broken if the header or the order of the values is misread."""
    path = tmp_path / "digits.gz"
    path.write_bytes(gzip.compress(idx(2051, (2, 2, 3), range(12))))
    wanted = tf.reshape(tf.cast(tf.range(12), tf.uint8), (2, 2, 3))
    assert bool(tf.reduce_all(common.read_idx(path, 2, 2, 3) == wanted))


whole = gzip.compress(idx(2049, (1000,), [n % 10 for n in range(1000)]))
DAMAGE = {
    "missing": None,
    "empty": b"",
    "not gzip": b"labels",
    "cut": whole[: len(whole) // 2],
    "flipped": whole[:40] + bytes([whole[40] ^ 255]) + whole[41:],
    "pictures instead": gzip.compress(idx(2051, (10, 10, 10), [0] * 1000)),
    "too short": gzip.compress(idx(2049, (1000,), [0] * 999)),
    "too long": gzip.compress(idx(2049, (1000,), [0] * 1001)),
    "header only in part": gzip.compress(b"\0\0\x08"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_idx(tmp_path, damage):
    """Broken if a damaged MNIST file is trained on, or the error does not name it."""
    path = tmp_path / "labels.gz"
    if DAMAGE[damage] is not None:
        path.write_bytes(DAMAGE[damage])
    with pytest.raises(common.UserError, match="labels.gz"):
        common.read_idx(path, 1000)


def test_swapped_files():
    """Broken if pictures and labels are accepted in each other's place."""
    with pytest.raises(common.UserError, match="labels.*damaged"):
        common.load_mnist(common.MNIST_FILES[::-1])


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_mixed_precision(precision, stage, request):
    """Broken if half precision does not train, or the losses are not float32."""
    keras.config.set_dtype_policy(precision)
    try:
        module = request.getfixturevalue(stage)
        model = module.GAN() if stage == "stage1" else module.ConditionalGAN()
        model.set_optimizers(common.adam(1e-4, 0.5), common.adam(1e-4, 0.5))
        losses = tf.function(model.train_step)(digit_batches(1)[0])
        assert all(loss.dtype == tf.float32 and math.isfinite(loss) for loss in losses.values())
    finally:
        keras.config.set_dtype_policy("float32")
