"""Checks of exercise 5: the train step of Pix2Pix."""

import math

import common

import keras
import tensorflow as tf
from grade import check_first_losses, check_losses, near

SHAPE = (1, 256, 256, 3)


def test_losses(answer, monkeypatch):
    """each loss follows its formula, and each network is updated with its own loss"""
    moved, asked, trained = [], [], []

    def move(loss, tape, network, optimizer):
        moved.append((float(loss), network.name, optimizer))

    for module in (answer, common):
        monkeypatch.setattr(module, "minimise", move)
    model = answer.Pix2Pix(filters=1)
    model.generator_optimizer = keras.optimizers.SGD(0.0)
    model.discriminator_optimizer = keras.optimizers.SGD(0.0)
    condition, real, fake = (tf.fill(SHAPE, value) for value in (0.0, 1.0, -0.5))

    def draw(x, training=None):
        trained.append(training)
        return fake

    def judge(condition, picture, training=None):
        asked.append((float(condition[0, 0, 0, 0]), float(picture[0, 0, 0, 0])))
        trained.append(training)
        return tf.fill((1, 30, 30, 1), 1.0 if asked[-1][1] == 1.0 else -2.0)

    model.generator.call, model.discriminator.call = draw, judge
    losses = model.train_step((condition, real))
    assert losses is not None, "train_step returns nothing; it should return the losses by name"
    assert all(trained), "a network is called without training=True"
    assert all(first == 0.0 for first, _ in asked), (
        "the condition comes first: self.discriminator(condition, picture, training=True)"
    )
    assert {picture for _, picture in asked} == {1.0, -0.5}, (
        "the discriminator should judge two pairs: (condition, real) and (condition, fake)"
    )
    wanted = {
        "g_l1": (1.5, "the mean of |real - fake|"),
        "g_adversarial": (math.log1p(math.exp(2)), "-log D(c, G(c)): the fake called real"),
        "d_real": (math.log1p(math.exp(-1)), "-log D(c, x): the real picture called real"),
        "d_fake": (math.log1p(math.exp(-2)), "-log(1 - D(c, G(c))): the fake called fake"),
    }
    told = "With a fake that differs from real by 1.5, and logits 1 for real and -2 for fake,"
    check_losses(losses, wanted, told)
    names = sorted(name for _, name, _ in moved)
    assert names == ["discriminator", "generator"], (
        f"`minimise` updates {names or 'no network'}; it should update each network once"
    )
    found = {name: loss for loss, name, _ in moved}
    g_loss = wanted["g_adversarial"][0] + 150.0
    assert near(found["generator"], g_loss), (
        f"the generator's loss is {found['generator']:.3f}; it should be {g_loss:.3f}, which is "
        "g_adversarial plus lambda_l1 = 100 times g_l1"
    )
    d_loss = wanted["d_real"][0] + wanted["d_fake"][0]
    assert near(found["discriminator"], d_loss), (
        f"the discriminator's loss is {found['discriminator']:.3f}; it should be d_real + d_fake, "
        f"which is {d_loss:.3f}"
    )
    own = {"generator": model.generator_optimizer, "discriminator": model.discriminator_optimizer}
    assert all(optimizer is own[name] for _, name, optimizer in moved), (
        "a network is updated by the other network's optimiser"
    )


def test_golden(answer, stage5):
    """the losses of the first training steps match the script's"""
    keras.utils.set_random_seed(0)
    model = answer.Pix2Pix()
    rates = stage5.LEARNING_RATE, stage5.BETA_1
    model.generator_optimizer = common.adam(model.generator, *rates)
    model.discriminator_optimizer = common.adam(model.discriminator, *rates)
    how = {"batch_size": 1, "seed": 0, "direction": "AtoB", "augment": "jitter"}
    paths = common.find_pairs(stage5.parse_flags([]).dataset)["train"]
    batches = common.training_pairs(paths, first_step=0, last_step=3, **how)
    cause = ": is each loss computed inside the tape that its gradient is taken from?"
    file = "test_pix2pix/test_first_losses.json"
    check_first_losses(tf.function(model.train_step), batches, file, cause)
