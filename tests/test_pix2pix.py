"""The train step of stage 5 plays the game it says, with the right players."""

import math

import common

import keras
import pytest
import tensorflow as tf

STILL, MOVING = 0.0, 1e-3


def first_pairs(count, batch_size=1):
    """The first training batches of the embedded pairs under seed 0."""
    return list(
        common.training_pairs(
            common.find_pairs("openmoji")["train"],
            batch_size=batch_size,
            seed=0,
            direction="AtoB",
            augment="jitter",
            first_step=0,
            last_step=count,
        )
    )


@pytest.fixture
def build(stage5):
    """Makes a Pix2Pix of seed 0, with plain gradient descent: a step is then -rate * gradient."""

    def build(loss="l1+cgan", lambda_l1=100.0, generator_rate=MOVING, discriminator_rate=MOVING):
        keras.utils.set_random_seed(0)
        model = stage5.Pix2Pix(loss, lambda_l1, filters=8)
        model.set_optimizers(keras.optimizers.SGD(generator_rate), keras.optimizers.SGD(discriminator_rate))
        return model

    return build


def copy(variables):
    return [tf.identity(v) for v in variables]


def largest_change(before, after):
    return max(float(tf.reduce_max(tf.abs(b - a))) for b, a in zip(before, after))


def test_first_losses(stage5, losses_regression):
    """Broken if anything between the files and the losses changes: the first 3 steps, float32.

    With the script's own rates and weight of L1, seed 0 and the embedded pairs. By hand one knows only
    the first row, and that roughly: an untrained generator draws gray, which is near 1 away from white
    paper, and an untrained discriminator gives logits near 0, so its losses are near log 2 = 0.69. The
    other numbers are what the code gave when its pictures had been looked at; `python -m pytest
    tests/test_pix2pix.py --force-regen` writes them anew.
    """
    keras.utils.set_random_seed(0)
    model = stage5.Pix2Pix()
    rates = stage5.LEARNING_RATE, stage5.BETA_1
    model.set_optimizers(common.adam(*rates), common.adam(*rates))
    step = tf.function(model.train_step)
    rows = [{name: float(loss) for name, loss in step(pair).items()} for pair in first_pairs(3)]
    assert rows[0]["g_l1"] == pytest.approx(0.9, abs=0.15)
    assert all(0.4 < loss < 1.4 for loss in rows[0].values())
    losses_regression(rows)


def test_each_optimiser_has_its_own_network(build):
    """Broken if the generator's or the discriminator's optimiser is given the other's variables."""
    (pair,) = first_pairs(1)
    for generator_rate, discriminator_rate in [(MOVING, STILL), (STILL, MOVING)]:
        model = build(generator_rate=generator_rate, discriminator_rate=discriminator_rate)
        networks = (model.generator, model.discriminator)
        before = [copy(network.trainable_variables) for network in networks]
        model.train_step(pair)
        moved = [largest_change(b, n.trainable_variables) > 0 for b, n in zip(before, networks)]
        assert moved == [generator_rate > 0, discriminator_rate > 0]


def test_weight_of_l1(build):
    """Broken if lambda is dropped, or a --loss leaves out or adds a term.

    With plain gradient descent a step is linear in the loss: the step of
    `adversarial + 100 L1` is that of `adversarial` and twice that of `50 L1` together.
    """
    (pair,) = first_pairs(1)
    steps = {}
    for loss, lambda_l1 in [("l1+cgan", 100.0), ("cgan", 100.0), ("l1", 50.0)]:
        model = build(loss, lambda_l1, generator_rate=1.0)
        before = copy(model.generator.trainable_variables)
        model.train_step(pair)
        after = model.generator.trainable_variables
        steps[loss] = tf.concat([tf.reshape(a - b, [-1]) for a, b in zip(after, before)], axis=0)
    both, adversarial, half_l1 = steps.values()
    size = float(tf.norm(both))
    assert float(tf.norm(adversarial + 2.0 * half_l1 - both)) < 1e-3 * size
    assert float(tf.norm(adversarial)) > 1e-3 * size, "no adversarial gradient reaches the generator"


def test_training_mode_in_the_step(build):
    """Broken if the step forgets training=True: moving averages and dropout would stand still."""
    model = build()
    before = copy(model.non_trainable_variables)
    model.train_step(first_pairs(1)[0])
    for old, variable in zip(before, model.non_trainable_variables):
        assert bool(tf.reduce_any(old != variable)), variable.path


def test_discriminator_learns_to_tell(build):
    """Broken if its labels are swapped: shown one pair again and again, it must call real real.

    Its own logits are looked at, higher for real, since swapped losses would sink as well.
    """
    ((sketch, real),) = first_pairs(1)
    model = build(generator_rate=STILL, discriminator_rate=1e-2)

    def margin():
        fake = common.generate(model.generator, sketch)
        judged = [model.discriminator(sketch, picture, training=True) for picture in (real, fake)]
        return float(tf.reduce_mean(judged[0]) - tf.reduce_mean(judged[1]))

    before = margin()
    losses = [model.train_step((sketch, real)) for _ in range(5)]
    sums = [float(loss["d_real"] + loss["d_fake"]) for loss in losses]
    assert margin() > before + 0.05 and sums == sorted(sums, reverse=True)


def test_step_shows_the_sketch_to_both(build):
    """Broken if the step hands the discriminator anything but (sketch, real) and (sketch, fake)."""
    (sketch, real), model, shown = first_pairs(1)[0], build(), []
    judge = model.discriminator.call

    def record(sketch, picture, training):
        shown.append((sketch, picture))
        return judge(sketch, picture, training)

    model.discriminator.call = record
    losses = model.train_step((sketch, real))
    assert len(shown) == 2
    assert all(bool(tf.reduce_all(seen == sketch)) for seen, _ in shown)
    assert bool(tf.reduce_all(shown[0][1] == real))
    l1 = float(tf.reduce_mean(tf.abs(shown[1][1] - real)))
    assert l1 == pytest.approx(float(losses["g_l1"])) and l1 > 0.01


def test_l1_alone_leaves_the_discriminator_out(build):
    """Broken if --loss l1 spends time on a discriminator, or logs losses it does not have."""
    model = build("l1")
    before = copy(model.discriminator.variables)
    assert list(model.train_step(first_pairs(1)[0])) == ["g_l1"]
    assert largest_change(before, model.discriminator.variables) == 0.0


def test_mixed_precision(stage5):
    """Broken if half precision does not train, or pictures, logits or losses are not float32."""
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        keras.utils.set_random_seed(0)
        model = stage5.Pix2Pix(filters=2)
        model.set_optimizers(common.adam(2e-4, 0.5), common.adam(2e-4, 0.5))
        (sketch, real), *_ = first_pairs(1)
        assert model.generator.encoder[0].compute_dtype == "bfloat16"
        assert common.generate(model.generator, sketch).dtype == tf.float32
        before = copy(model.generator.trainable_variables)
        losses = tf.function(model.train_step)((sketch, real))
        assert all(loss.dtype == tf.float32 and math.isfinite(loss) for loss in losses.values())
        assert largest_change(before, model.generator.trainable_variables) > 0
    finally:
        keras.config.set_dtype_policy("float32")
