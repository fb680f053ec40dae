"""Checks of exercise 2: Maxout."""

import common

import keras
import pytest
import tensorflow as tf
from grade import check_first_losses


def test_shape(answer):
    """Maxout(2, 3) returns 2 values, and Maxout(240, 5) on 784 pixels has 942,000 weights"""
    shape = tuple(answer.Maxout(2, 3)(tf.zeros((7, 4)), training=False).shape)
    hint = {(7, 3): ". Take the maximum over the pieces, the last axis"}
    hint |= {(7, 6): ". Are the Reshape and the maximum missing?"}
    assert shape == (7, 2), (
        f"Maxout(2, 3) turns (7, 4) into {shape}; it should be (7, 2){hint.get(shape, '')}"
    )
    maxout = answer.Maxout(240, 5)
    maxout(tf.zeros((1, 784)), training=False)
    count = maxout.count_params()
    assert count == 942_000, (
        f"Maxout(240, 5) on 784 pixels has {count:,} weights; 240 * 5 linear maps, each of 784 "
        "weights and a bias, should have 942,000"
    )


def test_by_hand(answer):
    """Maxout takes the largest of three linear maps, with no activation before it"""
    maxout, x = answer.Maxout(2, 3), tf.constant([[1.0, -2.0]])
    maxout(x, training=False)
    # Columns of the kernel: (1, 0), (0, 1), (-1, 0) for the first unit, (0, 2), (-3, -1), (-4, 0)
    # for the second. A ReLU inside would make the second unit 0.
    kernel, bias = maxout.weights
    kernel.assign([[1, 0, -1, 0, -3, -4], [0, 1, 0, 2, -1, 0]])
    bias.assign([0, 0, 0, 0, 0, -0.5])
    found = [round(float(value), 3) for value in maxout(x, training=False)[0]]
    hint = {
        (1.0, 0.0): "is there a ReLU inside? The maps should be linear",
        (-2.0, -4.5): "this is the minimum",
        (1.0, -4.0): "the pieces of a unit should be neighbours: Reshape((units, pieces))",
    }
    assert found == [1.0, -1.0], (
        f"the values (1, -2, -1) and (-4, -1, -4.5) give {found}; their maxima are [1.0, -1.0]: "
        + hint.get(tuple(found), "do you take the maximum over the pieces?")
    )


def test_dropout(answer):
    """half of the values are dropped before the maximum is taken, in training only"""
    # All 5 maps of a unit give 1; dropout keeps a half and doubles it. The largest is then 2, or 0
    # when all 5 are dropped, which happens to 1 unit in 32.
    maxout, x = answer.Maxout(4000, 5), tf.ones((1, 1))
    maxout(x, training=False)
    kernel = maxout.weights[0]
    kernel.assign(tf.ones(kernel.shape))
    still = maxout(x, training=False)[0]
    assert bool(tf.reduce_all(still == 1.0)), "values are dropped even with training=False"
    trained = maxout(x, training=True)[0]
    assert not bool(tf.reduce_all(trained == 1.0)), (
        "in training nothing is dropped: pass `training` to the dropout"
    )
    zeros = float(tf.reduce_mean(tf.cast(trained == 0.0, tf.float32)))
    assert zeros < 0.2, (
        f"{zeros:.0%} of the units are 0 in training: apply the dropout before the maximum; then "
        "a unit is 0 only if all five of its maps are dropped (3%)"
    )
    assert zeros == pytest.approx(1 / 32, abs=0.02), (
        f"{zeros:.1%} of the units are 0 in training; with Dropout(0.5) it should be about 3.1%"
    )
    found = sorted(map(float, tf.unique(trained).y))
    assert found == [0.0, 2.0], f"dropout turns 1 into one of {found}, not into 0.0 or 2.0"


def test_golden(answer, stage2, monkeypatch):
    """with your Maxout, the losses of the first training steps match the script's"""
    monkeypatch.setattr(stage2, "Maxout", answer.Maxout)
    keras.utils.set_random_seed(0)
    model = stage2.ConditionalGAN()
    model.generator_optimizer = common.adam(model.generator, 5e-4, 0.5)
    model.discriminator_optimizer = common.adam(model.discriminator, 5e-4, 0.5)
    how = {"batch_size": 128, "seed": 0, "first_step": 0, "last_step": 3}
    batches = common.training_digits(*common.load_mnist(), **how)
    cause = ". If everything else is right, your code only draws other random numbers: that is fine"
    file = "test_digits/test_first_losses_stage2_.json"
    check_first_losses(tf.function(model.train_step), batches, file, cause)
