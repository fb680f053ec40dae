"""What a seed and the flags of a trainer decide: order, augmentation, weights, noise, precision."""

import math

import keras
import pytest
import tensorflow as tf

TRAINERS = ["01_gan_mnist.py", "02_cgan_mnist.py", "05_pix2pix_train.py"]


def all_differ(tensors):
    """Returns whether no two of the tensors are equal."""
    pairs = [(a, b) for n, a in enumerate(tensors) for b in tensors[:n]]
    return not any(bool(tf.reduce_all(a == b)) for a, b in pairs)


def test_noise_is_normal_and_always_new(stage1):
    """Broken if the noise is not N(0, 1), or does not change from update to update."""
    keras.utils.set_random_seed(0)
    model = stage1.GAN()
    first, second = model.noise(1000, 100), model.noise(1000, 100)
    assert first.shape == (1000, 100) and all_differ([first, second])
    for noise in (first, second):
        assert float(tf.reduce_mean(noise)) == pytest.approx(0.0, abs=0.02)
        assert float(tf.math.reduce_std(noise)) == pytest.approx(1.0, abs=0.02)
        assert float(tf.reduce_max(tf.abs(noise))) > 3.5, "not a normal distribution"


@pytest.mark.parametrize("script", TRAINERS)
def test_a_trainer_hands_its_seed_on(script, arguments_of_train, few_pairs):
    """Broken if a trainer's batches, weights or noise do not depend on --seed."""
    flags = ["--dataset", few_pairs, "--filters", 1] if script == TRAINERS[2] else []
    batches, kernels, noises = [], [], []
    for seed in (0, 1):
        given = arguments_of_train(script, *flags, "--seed", seed, "--out", seed)
        batches.append(next(iter(given.batches(first_step=2, last_step=3)))[0])
        kernels.append(given.model.generator.trainable_variables[0].value)
        if script != TRAINERS[2]:
            noises.append(given.model.noise(2, 5))
    assert all_differ(batches) and all_differ(kernels) and all_differ(noises)


@pytest.mark.parametrize("script, kind", list(zip(TRAINERS, ["float16", "bfloat16", "bfloat16"])))
def test_mixed_precision(script, kind, arguments_of_train, few_pairs):
    """Broken if --precision has no effect, stops training, or computes losses in 16 bits."""
    flags = ["--dataset", few_pairs, "--filters", 2] if script == TRAINERS[2] else []
    given = arguments_of_train(script, "--precision", f"mixed_{kind}", *flags)
    networks = given.model.generator, given.model.discriminator
    for network in networks:
        types = {layer.compute_dtype for layer in network._flatten_layers() if layer.weights}
        assert types == {kind, "float32"}, "pictures and logits are float32, the rest is not"
    before = [tf.identity(network.trainable_variables[0]) for network in networks]
    (batch,) = given.batches(first_step=0, last_step=1)
    losses = given.model.train_step(batch)
    assert all(loss.dtype == tf.float32 and math.isfinite(loss) for loss in losses.values())
    for old, network in zip(before, networks):
        assert all_differ([old, network.trainable_variables[0].value])


def test_stage_1_and_2_hand_their_flags_on(arguments_of_train):
    """Broken if a flag of stage 1 or 2 does not reach the training, or a default changes."""
    flags = ["--learning-rate", 1e-4, "--beta-1", 0.9, "--no-wrong-labels", "--batch-size", 60]
    for script, out, more, wanted in (
        (TRAINERS[0], "gan", [], (2e-4, 0.5, None, 468, 128)),
        (TRAINERS[1], "cgan", [], (5e-4, 0.5, True, 468, 128)),
        (TRAINERS[1], "plain", flags, (1e-4, 0.9, False, 1000, 60)),
    ):
        given = arguments_of_train(script, "--out", out, *more)
        rate, beta_1, wrong_labels, steps, batch_size = wanted
        for optimizer in (given.model.generator_optimizer, given.model.discriminator_optimizer):
            assert float(optimizer.learning_rate) == pytest.approx(rate)
            assert optimizer.beta_1 == beta_1
        assert getattr(given.model, "wrong_labels", None) == wrong_labels
        assert given.steps_per_epoch == steps
        assert len(next(iter(given.batches(first_step=0, last_step=1)))[0]) == batch_size
