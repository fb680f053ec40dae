"""The game of two networks: what each is shown, which loss updates which network, and how far."""

import math

import common

import keras
import pytest
import tensorflow as tf
from conftest import same


def cross_entropy(logit, real):
    """-log of the probability that a logit gives to the answer: log(1 + e^-x) or log(1 + e^x)."""
    return math.log1p(math.exp(-logit if real else logit))


# The losses of a discriminator that gives real pictures the logit 1 and generated ones -2.
D_REAL, D_FAKE = cross_entropy(1, True), cross_entropy(-2, False)  # 0.3133, 0.1269
G_ADVERSARIAL = cross_entropy(-2, True)  # 2.1269


@pytest.fixture
def moves(monkeypatch):
    """Replaces a stage's `minimise`: it notes (loss, network, optimiser), and updates nothing."""
    noted = []

    def watch(stage):
        def note(loss, tape, network, optimizer):
            noted.append((float(loss), network, optimizer))

        monkeypatch.setattr(stage, "minimise", note)
        return noted

    return watch


def still(model):
    """Gives a model optimisers that change nothing."""
    model.generator_optimizer = keras.optimizers.SGD(0.0)
    model.discriminator_optimizer = keras.optimizers.SGD(0.0)
    return model


def check(model, losses, wanted, noted, wanted_moves):
    """Compares a step's losses and updates: [("generator" or "discriminator", loss)]."""
    assert {name: float(loss) for name, loss in losses.items()} == pytest.approx(wanted, rel=1e-4)
    assert [loss for loss, *_ in noted] == pytest.approx([x[1] for x in wanted_moves], rel=1e-4)
    assert [move[1:] for move in noted] == [
        (getattr(model, name), getattr(model, f"{name}_optimizer")) for name, _ in wanted_moves
    ]


def test_adversarial_losses_by_hand():
    """Broken if a label is swapped or sigmoid is applied twice.

    Cross-entropy of logit x is log(1 + e^-x) against 1 and log(1 + e^x) against 0:
    at 0 both are log 2 = 0.6931; at 2: 0.1269 and 2.1269.
    """
    undecided, sure = tf.zeros((1, 30, 30, 1)), tf.fill((1, 30, 30, 1), 2.0)
    wanted = [(undecided, True, 0.6931), (undecided, False, 0.6931)]
    wanted += [(sure, True, 0.1269), (sure, False, 2.1269)]
    for logits, real, loss in wanted:
        assert float(common.adversarial_loss(logits, real)) == pytest.approx(loss, abs=1e-4)


def test_scores_by_hand():
    """Broken if a score is computed on another range than its formula assumes.

    Two flat grays, 121 and 134 of 255. L1 on [-1, 1]: 13 / 127.5 = 0.1020. PSNR:
    20 log10(255 / 13) = 25.85 dB. SSIM on [0, 1]: flat pictures have no variance, so only the
    luminance term is left, (2ab + 0.01^2) / (a^2 + b^2 + 0.01^2) with a = 0.4745 and
    b = 0.5255: 0.9948. (On [-1, 1], a = -0.051 and b = 0.051, it would be -0.86.)
    The PSNR of equal pictures is infinite, which no table or curve can show: it ends at 100 dB.
    """
    dark, bright = (tf.fill((1, 256, 256, 3), value / 127.5 - 1.0) for value in (121, 134))
    scores = {name: float(value) for name, value in common.scores(dark, bright).items()}
    assert scores == pytest.approx({"l1": 0.10196, "psnr": 25.852, "ssim": 0.9948}, rel=1e-3)
    equal = {name: float(value) for name, value in common.scores(dark, dark).items()}
    assert equal == pytest.approx({"l1": 0.0, "psnr": 100.0, "ssim": 1.0})
    means = common.mean_scores([scores, equal], "val_")
    assert list(means) == ["val_l1", "val_psnr", "val_ssim"]
    assert means["val_psnr"] == pytest.approx(62.926, rel=1e-3)


def test_losses_of_the_gan_by_hand(stage1, moves):
    """Broken if a loss of stage 1 is not the paper's, or updates the wrong network."""
    model, noted = still(stage1.GAN()), moves(stage1)
    real = tf.ones((3, 28, 28, 1))
    model.discriminator.call = lambda x: tf.fill((3, 1), 1.0 if same(x, real) else -2.0)
    losses = model.train_step((real, None))
    wanted = {"d_real": D_REAL, "d_fake": D_FAKE, "g_adversarial": G_ADVERSARIAL}
    wanted_moves = [("discriminator", D_REAL + D_FAKE), ("generator", G_ADVERSARIAL)]
    check(model, losses, wanted, noted, wanted_moves)


def test_gan_takes_new_noise_for_each_update(stage1, monkeypatch):
    """Broken if the generator's update comes first, or reuses the noise of the discriminator's.

    Algorithm 1 of the paper: update the discriminator with real digits and with digits from noise;
    then update the generator with new noise, judged by the updated discriminator.
    """
    model, told, noises = still(stage1.GAN()), [], []
    draw, judge = model.generator.call, model.discriminator.call

    def record_draw(x):
        noises.append(x)
        told.append("drawn")
        return draw(x)

    def record_judge(x):
        told.append("judged")
        return judge(x)

    def move(loss, tape, network, optimizer):
        told.append(f"{network.name} moved")
        gradients = tape.gradient(loss, network.trainable_variables)
        assert all(float(tf.norm(gradient)) > 0 for gradient in gradients), "a gradient is 0"

    model.generator.call, model.discriminator.call = record_draw, record_judge
    monkeypatch.setattr(stage1, "minimise", move)
    model.train_step((tf.random.stateless_normal((4, 28, 28, 1), (0, 0)), None))
    assert told[:4] == ["drawn", "judged", "judged", "discriminator moved"]
    assert told[4:] == ["drawn", "judged", "generator moved"]
    assert noises[0].shape == noises[1].shape == (4, stage1.LATENT)
    assert not bool(tf.reduce_any(noises[0] == noises[1]))


@pytest.mark.parametrize("wrong_labels", [True, False])
def test_losses_of_the_cgan_by_hand(stage2, moves, wrong_labels):
    """Broken if stage 2 leaves a term out, adds one, or hands the wrong label to a network.

    Real digits with their own label get the logit 1, generated ones -2, and real ones with a wrong
    label 3. The last are to be called fake.
    """
    model, noted = still(stage2.ConditionalGAN(wrong_labels)), moves(stage2)
    real, label = tf.ones((3, 28, 28, 1)), tf.one_hot([4, 0, 9], 10)

    def draw(noise, label_shown):
        assert same(label_shown, label) and noise.shape == (3, stage2.LATENT)
        return -real

    def judge(picture, label_shown, training):
        assert training
        if same(picture, -real):
            assert same(label_shown, label)
            return tf.fill((3, 1), -2.0)
        return tf.fill((3, 1), 1.0 if same(label_shown, label) else 3.0)

    model.generator.call, model.discriminator.call = draw, judge
    losses = model.train_step((real, label))
    wanted = {"d_real": D_REAL, "d_fake": D_FAKE, "g_adversarial": G_ADVERSARIAL}
    wanted |= {"d_wrong": cross_entropy(3, False)} if wrong_labels else {}
    d_loss = sum(wanted.values()) - G_ADVERSARIAL
    wanted_moves = [("generator", G_ADVERSARIAL), ("discriminator", d_loss)]
    check(model, losses, wanted, noted, wanted_moves)


def test_wrong_labels_are_all_the_others(stage2, moves):
    """Broken if a right label is shown as a wrong one, or some wrong label is never shown."""
    keras.utils.set_random_seed(0)
    model, shown = still(stage2.ConditionalGAN()), []
    moves(stage2)
    real, label = tf.ones((2, 28, 28, 1)), tf.one_hot([4, 7], 10)

    def judge(picture, label_shown, training):
        shown.append([int(n) for n in tf.argmax(label_shown, axis=1)])
        return tf.zeros((2, 1))

    model.generator.call, model.discriminator.call = lambda noise, label: -real, judge
    for _ in range(80):  # 80 steps miss one of nine labels 7 times in 10,000
        model.train_step((real, label))
    assert shown[0::3] == shown[1::3] == [[4, 7]] * 80
    wrong = [set(labels) for labels in zip(*shown[2::3])]
    assert wrong == [set(range(10)) - {4}, set(range(10)) - {7}]


@pytest.mark.parametrize("loss", ["l1+cgan", "cgan", "l1"])
def test_losses_of_pix2pix_by_hand(stage5, moves, loss):
    """Broken if stage 5 leaves a term out, gives it a wrong weight, or judges without the sketch.

    The generator draws gray (0) where white (1) is wanted: L1 is 1, with a weight of 7.
    """
    model, noted = still(stage5.Pix2Pix(loss, lambda_l1=7.0, filters=1)), moves(stage5)
    condition, real, judged = tf.fill((1, 256, 256, 3), -1.0), tf.ones((1, 256, 256, 3)), []

    def draw(x, training):
        assert training and same(x, condition)
        return 0.0 * x

    def judge(x, picture, training):
        assert training and same(x, condition)
        judged.append("real" if same(picture, real) else "fake")
        assert judged[-1] == "real" or same(picture, 0.0)
        return tf.fill((1, 30, 30, 1), 1.0 if judged[-1] == "real" else -2.0)

    model.generator.call, model.discriminator.call = draw, judge
    losses = model.train_step((condition, real))
    wanted, g_loss, wanted_moves = {"g_l1": 1.0}, 7.0 * ("l1" in loss), []
    if "cgan" in loss:
        wanted |= {"d_real": D_REAL, "d_fake": D_FAKE, "g_adversarial": G_ADVERSARIAL}
        g_loss += G_ADVERSARIAL
        wanted_moves = [("discriminator", D_REAL + D_FAKE)]
    check(model, losses, wanted, noted, [("generator", g_loss), *wanted_moves])
    assert judged == (["real", "fake"] if "cgan" in loss else []), "L1 alone needs no judge"


def test_gradients_of_both_terms_reach_the_generator(stage5):
    """Broken if the gradient of a term is cut off on its way to the generator.

    With plain gradient descent a step is linear in the loss: the step of
    `adversarial + 100 L1` is that of `adversarial` plus twice that of `50 L1`.
    """
    pair = [tf.random.stateless_uniform((1, 256, 256, 3), (n, 0), -1.0, 1.0) for n in (0, 1)]
    steps = []
    for loss, lambda_l1 in [("l1+cgan", 100.0), ("cgan", 100.0), ("l1", 50.0)]:
        keras.utils.set_random_seed(0)
        model = stage5.Pix2Pix(loss, lambda_l1, filters=4)
        model.generator_optimizer = keras.optimizers.SGD(1.0)
        model.discriminator_optimizer = keras.optimizers.SGD(0.0)
        weights = model.generator.trainable_variables
        before = [tf.identity(v) for v in weights]
        model.train_step(pair)
        changes = [tf.reshape(v - old, [-1]) for v, old in zip(weights, before)]
        steps.append(tf.concat(changes, axis=0))
    both, adversarial, half_l1 = steps
    size = float(tf.norm(both))
    assert float(tf.norm(adversarial + 2.0 * half_l1 - both)) < 1e-3 * size
    assert float(tf.norm(adversarial)) > 1e-3 * size and float(tf.norm(half_l1)) > 1e-3 * size


def moved(optimizer_of, slope):
    """Returns where one step of an optimiser takes a weight w = 1 whose loss is slope * w."""
    layer = keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")
    layer.build((1, 1))
    optimizer = optimizer_of(layer)
    with tf.GradientTape() as tape:
        loss = slope * tf.reduce_sum(tf.cast(layer(tf.ones((1, 1))), tf.float32))
    common.minimise(loss, tape, layer, optimizer)
    return float(layer.kernel.value[0, 0])


@pytest.mark.parametrize("scaled", [False, True])
def test_minimise_moves_by_the_gradient(scaled):
    """Broken if a step is not -rate * gradient, or still has the scale of float16's loss.

    The gradient of the loss 3 w is 3: with a rate of 0.5, w goes from 1 to -0.5.
    """
    optimizer = keras.optimizers.SGD(0.5)
    optimizer = keras.optimizers.LossScaleOptimizer(optimizer) if scaled else optimizer
    assert moved(lambda layer: optimizer, 3.0) == pytest.approx(-0.5)


def test_float16_keeps_faint_gradients():
    """Broken if a gradient of 1e-8, which is 0 in float16, no longer moves a weight."""
    keras.config.set_dtype_policy("mixed_float16")
    try:
        assert moved(lambda layer: common.adam(layer, 0.1, 0.5), 1e-8) < 1.0
    finally:
        keras.config.set_dtype_policy("float32")
    assert float(common.adam(keras.layers.ReLU(), 0.1, 0.5).scale_loss(1.0)) == 1.0


def test_adam_is_keras_own():
    """Broken if the compiled update is not Adam's: three steps, gradients of both signs."""
    steps = [([1.0, -2.0], [[0.5]]), ([0.1, 0.0], [[-3.0]]), ([-1.0, 4.0], [[0.25]])]
    results = []
    for optimizer in (common.CompiledAdam(0.1, beta_1=0.5), keras.optimizers.Adam(0.1, beta_1=0.5)):
        variables = [keras.Variable([1.0, 2.0]), keras.Variable([[3.0]])]
        optimizer.build(variables)
        for gradients in steps:
            optimizer.apply([tf.constant(gradient) for gradient in gradients], variables)
        results.append([tf.cast(v.value, tf.float32) for v in (*variables, *optimizer.variables)])
    for ours, theirs in zip(*results, strict=True):
        tf.debugging.assert_near(ours, theirs, rtol=1e-5, atol=1e-6)


def test_fitting_lowers_the_loss(stage4):
    """Broken if stage 4's `fit` does not train, uses one pair only, or ignores the rate."""
    layer = keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")
    network, seen = keras.Sequential([keras.Input((1,)), layer]), []
    examples = [(tf.fill((1, 1), value), tf.fill((1, 1), 3.0 * value)) for value in (1.0, 2.0)]

    def loss_of(network, x, wanted):
        tf.py_function(lambda value: seen.append(float(value)), [x[0, 0]], [])
        return stage4.l1_loss(network, x, wanted)

    stage4.fit(network, loss_of, examples, 5, 0.1)
    assert seen == [1.0, 2.0, 1.0, 2.0, 1.0]
    weight = float(layer.kernel.value[0, 0])
    assert weight == pytest.approx(0.5, rel=0.05), "Adam moves by its rate while signs agree"
    stage4.fit(network, loss_of, examples, 60, 0.1)
    assert float(layer.kernel.value[0, 0]) == pytest.approx(3.0, abs=0.3)


def test_losses_and_pairs_of_stage_4(stage4, few_pairs):
    """Broken if a loss of stage 4 is wrong, or `some_pairs` returns other pairs than it should."""

    def judge(sketch, picture, training):
        assert training
        return tf.fill((1, 30, 30, 1), 1.0 if float(picture[0, 0, 0, 0]) > 0 else -2.0)

    sketch, real, fake = (tf.fill((1, 4, 4, 3), value) for value in (0.0, 1.0, -0.5))
    loss = stage4.real_or_fake_loss(judge, sketch, real, fake)
    assert float(loss) == pytest.approx(D_REAL + D_FAKE, rel=1e-4)
    assert float(stage4.l1_loss(lambda x, training: x, sketch, fake)) == pytest.approx(0.5)
    assert stage4.mean_l1(tf.identity, [(sketch, real), (sketch, fake)]) == pytest.approx(0.75)
    paths = common.find_pairs(few_pairs)["train"]
    stored, found = [common.read_stack(path, "AtoB") for path in paths], []
    for pair in stage4.some_pairs(paths, 4):
        near = [tf.abs(tf.concat(pair, axis=-1)[0] - other) < 1e-5 for other in stored]
        found += [n for n, pixels in enumerate(near) if bool(tf.reduce_all(pixels))]
    assert sorted(found) == [0, 1, 2, 3]
