"""Checks of exercise 1: the discriminator and the losses of the GAN."""

import math

import common

import keras
import tensorflow as tf
from grade import check_first_losses, check_losses, near


def test_discriminator(answer):
    """the discriminator returns one logit for each digit, and has 566,273 weights"""
    keras.utils.set_random_seed(0)
    network = answer.Discriminator()
    digits = 100.0 * tf.random.stateless_normal((64, 28, 28, 1), (0, 0))
    logits = network(digits, training=False)
    shape = tuple(logits.shape)
    assert shape == (64, 1), (
        f"for 64 digits the output has shape {shape}; it should be (64, 1). Is Flatten first?"
    )
    low, high = float(tf.reduce_min(logits)), float(tf.reduce_max(logits))
    assert not (low >= 0.0 and high <= 1.0), (
        f"all logits lie between 0 and 1 ({low:.2f} to {high:.2f}): is there a sigmoid at the end? "
        "The losses need the logits themselves"
    )
    assert low != 0.0, "the smallest logit is exactly 0: is there a ReLU at the end?"
    twice, opposite = (network(scale * digits, training=False) for scale in (2.0, -1.0))
    far = [float(tf.reduce_max(tf.abs(gap))) for gap in (opposite + logits, twice - 2.0 * logits)]
    assert far[1] < 1e-4 * float(tf.reduce_max(tf.abs(logits))) < far[0], (  # biases are still 0
        "the three layers before the last need activation='relu'"
    )
    count = network.count_params()
    assert count == 566_273, (
        f"the discriminator has {count:,} weights; Dense 512, 256, 128, 1 should have 566,273"
    )


def test_losses(answer, stage1, monkeypatch):
    """each loss follows its formula, and each network is updated with its own loss"""
    monkeypatch.setattr(answer, "Discriminator", stage1.Discriminator)
    moved = []
    monkeypatch.setattr(
        answer, "minimise", lambda loss, tape, network, by: moved.append((float(loss), network))
    )
    model = answer.GAN()
    model.generator_optimizer = model.discriminator_optimizer = keras.optimizers.SGD(0.0)
    real = tf.ones((3, 28, 28, 1))
    is_real = lambda x: tf.reduce_all(x == 1.0, axis=(1, 2, 3))[:, tf.newaxis]  # noqa: E731
    model.discriminator.call = lambda x: tf.where(is_real(x), 1.0, -2.0)
    losses = model.train_step((real, None))
    wanted = {
        "d_real": (math.log1p(math.exp(-1)), "-log D(x): real digits called real"),
        "d_fake": (math.log1p(math.exp(-2)), "-log(1 - D(G(z))): fakes called fake"),
        "g_adversarial": (math.log1p(math.exp(2)), "-log D(G(z)): fakes called real"),
    }
    check_losses(losses, wanted, "With logit 1 for real digits and -2 for fakes,")
    assert [network.name for _, network in moved] == ["discriminator", "generator"]
    total = wanted["d_real"][0] + wanted["d_fake"][0]
    assert near(moved[0][0], total), (
        f"d_loss is {moved[0][0]:.3f}; it should be d_real + d_fake, which is {total:.3f}"
    )
    assert near(moved[1][0], wanted["g_adversarial"][0]), "the generator minimises the wrong loss"


def test_golden(answer, stage1, monkeypatch):
    """the losses of the first training steps match the script's"""
    monkeypatch.setattr(answer, "Discriminator", stage1.Discriminator)
    keras.utils.set_random_seed(0)
    model = answer.GAN()
    rates = stage1.LEARNING_RATE, stage1.BETA_1
    model.generator_optimizer = common.adam(model.generator, *rates)
    model.discriminator_optimizer = common.adam(model.discriminator, *rates)
    how = {"batch_size": 128, "seed": 0, "first_step": 0, "last_step": 3}
    batches = common.training_digits(*common.load_mnist(), **how)
    cause = ": does the generator's half make new fakes from `noise`, inside its tape?"
    file = "test_digits/test_first_losses_stage1_.json"
    check_first_losses(tf.function(model.train_step), batches, file, cause)
