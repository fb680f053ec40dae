"""What a seed decides: another one gives another order, other augmentations, weights and noise."""

import argparse

import common

import keras
import pytest
import tensorflow as tf

TRAINERS = ["01_gan_mnist.py", "02_cgan_mnist.py", "05_pix2pix_train.py"]


def all_differ(things):
    """Tells whether no two of some tensors are equal."""
    return not any(bool(tf.reduce_all(a == b)) for n, a in enumerate(things) for b in things[:n])


@pytest.fixture
def grays(tmp_path):
    """Paths of twelve small pairs, each of one gray level: 0, 20, 40, ..."""
    paths = []
    for level in range(0, 240, 20):
        paths.append(str(tmp_path / f"{level:03}.png"))
        tf.io.write_file(paths[-1], tf.io.encode_png(tf.fill((2, 4, 3), tf.constant(level, tf.uint8))))
    return paths


def pairs(paths, seed, augment="none", count=12):
    """The training pairs of the first steps under a seed, (256, 256, 6) each."""
    batches = common.training_pairs(
        paths, batch_size=1, seed=seed, direction="AtoB", augment=augment, first_step=0, last_step=count
    )
    return [tf.concat(pair, axis=-1)[0] for pair in batches]


def test_another_seed_is_another_order_of_pairs(grays):
    """Broken if the shuffle of the pairs is the same whatever the seed."""
    orders = {tuple(round(float(pair[0, 0, 0]), 3) for pair in pairs(grays, seed)) for seed in (0, 1, 2, 3)}
    assert len(orders) == 4
    assert len({tuple(sorted(order)) for order in orders}) == 1, "a pass has each pair once"


def test_another_seed_is_another_order_of_digits():
    """Broken if the shuffle of the digits is the same whatever the seed."""
    digits = tf.reshape(tf.cast(tf.range(100), tf.uint8), (100, 1, 1, 1))
    orders = []
    for seed in (0, 1, 2, 3):
        span = {"first_step": 0, "last_step": 1}
        ((batch, _),) = common.training_digits(digits, digits[:, 0, 0, 0], batch_size=100, seed=seed, **span)
        orders.append(batch)
    assert all_differ(orders)
    assert len({tuple(sorted(map(float, tf.reshape(order, [-1])))) for order in orders}) == 1


@pytest.mark.parametrize("augment", ["jitter", "course"])
def test_another_seed_augments_otherwise(augment, tmp_path):
    """Broken if a picture is cropped and mirrored alike whatever the seed, or alike in each step.

    There is one picture alone, so the shuffle has no part in it.
    """
    noise = tf.cast(tf.random.stateless_uniform((256, 512, 3), (0, 0), 0, 256, tf.int32), tf.uint8)
    tf.io.write_file(str(tmp_path / "noise.png"), tf.io.encode_png(noise))
    drawn = [pairs([str(tmp_path / "noise.png")], seed, augment, count=3) for seed in (0, 1)]
    assert all_differ(drawn[0] + drawn[1])


def test_another_seed_draws_other_examples_in_stage_3(stage3, tmp_path, monkeypatch):
    """Broken if stage 3 shows the same augmentations whatever the seed, or the same one four times."""
    noise = tf.cast(tf.random.stateless_uniform((256, 512, 3), (0, 0), 0, 256, tf.int32), tf.uint8)
    tf.io.write_file(str(tmp_path / "noise.png"), tf.io.encode_png(noise))
    drawn = []
    monkeypatch.setattr(common, "save_grid", lambda path, rows, **titles: drawn.append(rows))
    for seed in (0, 1):
        stage3.draw_augmentations(tmp_path / "grid.png", str(tmp_path / "noise.png"), "AtoB", seed)
    names = list(common.AUGMENTATIONS)
    for name in ("jitter", "course"):
        row = names.index(name)
        assert len(drawn[0][row]) == stage3.DRAWS_SHOWN
        assert all_differ(drawn[0][row] + drawn[1][row]), name
    assert all(bool(tf.reduce_all(draw == drawn[0][0][0])) for draw in drawn[0][0] + drawn[1][0])


def test_another_seed_is_another_start(stage1, tmp_path):
    """Broken if the networks begin with the same weights, or the same noise, whatever the seed."""

    def begin(name, seed):
        args = argparse.Namespace(out=tmp_path / name, fresh=False, seed=seed, precision="float32")
        common.start_run(args, {}, {})
        model = stage1.GAN()
        return tf.concat([tf.reshape(v, [-1]) for v in (*model.weights, model.noise(2, 5))], axis=0)

    first, again, other = begin("a", 0), begin("b", 0), begin("c", 1)
    assert bool(tf.reduce_all(first == again)), "one seed, two starts"
    assert all_differ([first, other])


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_the_precision_is_set(precision, stage1, tmp_path):
    """Broken if --precision has no effect on the networks."""
    args = argparse.Namespace(out=tmp_path / "run", fresh=False, seed=0, precision=precision)
    try:
        common.start_run(args, {}, {})
        model = stage1.GAN()
        assert model.generator.hidden[0].compute_dtype == precision.removeprefix("mixed_")
        assert model.generator.to_pixels.compute_dtype == "float32"
    finally:
        keras.config.set_dtype_policy("float32")


def test_stage_2_hands_its_flags_on(call_main, monkeypatch):
    """Broken if a flag of stage 2 has no effect on the game."""
    models = []

    def train(model, run, batches, args, *, steps_per_epoch, **rest):
        models.append((model, steps_per_epoch, len(next(iter(batches(first_step=0, last_step=1)))[1])))
        raise common.UserError("far enough")

    monkeypatch.setattr(common, "train", train)
    flags = ["--learning-rate", 1e-4, "--beta-1", 0.9, "--no-wrong-labels", "--batch-size", 60]
    for out, more in (("plain", flags), ("usual", [])):
        assert "far enough" in call_main("02_cgan_mnist.py", "--out", out, *more).stderr
    for (model, *sizes), wanted in zip(models, [(1e-4, 0.9, False, 1000, 60), (5e-4, 0.5, True, 468, 128)]):
        for optimizer in (model.generator_optimizer, model.discriminator_optimizer):
            assert float(optimizer.learning_rate) == pytest.approx(wanted[0])
            assert optimizer.beta_1 == wanted[1]
        assert (model.wrong_labels, *sizes) == wanted[2:]


@pytest.mark.parametrize("script", TRAINERS)
def test_a_trainer_hands_its_seed_on(script, call_main, few_pairs, stage5, monkeypatch):
    """Broken if a trainer's batches are those of a fixed seed, and not of --seed."""
    taken = []

    def train(model, run, batches, args, **rest):
        taken.append(next(iter(batches(first_step=2, last_step=3)))[0])
        raise common.UserError("far enough")

    monkeypatch.setattr(common, "train", train)
    flags = ["--dataset", few_pairs, "--filters", 1] if script[1] == "5" else []
    for out, seed in (("a", 0), ("b", 0), ("c", 1)):
        done = call_main(script, *flags, "--seed", seed, "--out", out)
        assert "far enough" in done.stderr, done.stderr
    assert bool(tf.reduce_all(taken[0] == taken[1])) and all_differ(taken[1:])


@pytest.mark.parametrize("script", TRAINERS[:2])
def test_samples_are_of_one_noise(script, call_main, monkeypatch):
    """Broken if samples of two epochs have other noise, or if they have the same under another seed."""
    seen = []

    def train(model, run, batches, args, draw, **rest):
        def record(noise, *label, training):
            assert not training
            seen[-1].append(noise)
            return tf.zeros((len(noise), 28, 28, 1))

        seen.append([])
        object.__setattr__(model, "generator", record)
        draw(run / "one.png")
        draw(run / "two.png")
        raise common.UserError("far enough")

    monkeypatch.setattr(common, "train", train)
    monkeypatch.setattr(common, "save_grid", lambda *args, **options: None)
    for out, seed in (("a", 0), ("b", 1)):
        done = call_main(script, "--seed", seed, "--out", out)
        assert "far enough" in done.stderr, done.stderr
    for calls in seen:
        half = len(calls) // 2
        assert all(bool(tf.reduce_all(a == b)) for a, b in zip(calls[:half], calls[half:]))
    assert all_differ([seen[0][0], seen[1][0]])
    assert abs(float(tf.math.reduce_std(seen[0][0])) - 1.0) < 0.1, "noise is N(0, 1)"


def test_batches_of_digits_are_a_function_of_seed_and_step():
    """Broken if a resumed stage 1 or 2 sees other digits than one in one go."""
    digits = tf.reshape(tf.cast(tf.range(100), tf.uint8), (100, 1, 1, 1))

    def batches(first, last):
        span = {"first_step": first, "last_step": last, "batch_size": 30, "seed": 5}
        return [tf.reshape(b, [-1]) for b, _ in common.training_digits(digits, digits[:, 0, 0, 0], **span)]

    whole, rest = batches(0, 8), batches(3, 8)
    assert len(whole) == 8 and len(rest) == 5
    assert all(bool(tf.reduce_all(a == b)) for a, b in zip(whole[3:], rest))


def test_noise_is_normal_and_always_new(stage1):
    """Broken if the noise is not N(0, 1), or the same at each update."""
    keras.utils.set_random_seed(0)
    model = stage1.GAN()
    first, second = model.noise(1000, 100), model.noise(1000, 100)
    assert first.shape == (1000, 100) and all_differ([first, second])
    for noise in (first, second):
        assert float(tf.reduce_mean(noise)) == pytest.approx(0.0, abs=0.02)
        assert float(tf.math.reduce_std(noise)) == pytest.approx(1.0, abs=0.02)
        assert float(tf.reduce_max(tf.abs(noise))) > 3.5, "no normal distribution"
