"""The game of two networks, step by step: who is shown what, which loss moves whom, and how far."""

import math

import common

import keras
import pytest
import tensorflow as tf


def cross_entropy(logit, real):
    """-log of the probability that a logit gives to the answer, by hand: log(1 + e^-x) or log(1 + e^x)."""
    return math.log1p(math.exp(-logit if real else logit))


@pytest.fixture
def moves(monkeypatch):
    """Has a stage's `minimise` note (loss, network, optimiser), and move nothing."""
    noted = []

    def watch(module):
        def note(loss, tape, network, optimizer):
            noted.append((float(loss), network, optimizer))

        monkeypatch.setattr(module, "minimise", note)
        return noted

    return watch


def still(model):
    """Gives a model optimisers that move nothing."""
    model.set_optimizers(keras.optimizers.SGD(0.0), keras.optimizers.SGD(0.0))
    return model


def constant(value, like):
    return tf.fill((like.shape[0], 1), value)


def test_losses_of_the_gan_by_hand(stage1, moves):
    """Broken if stage 1 moves a network by another loss than the paper's, or by the other one's.

    A discriminator that gives real digits 1 and generated ones -2: d_real = log(1 + e^-1) = 0.3133,
    d_fake = log(1 + e^-2) = 0.1269, and the generator, which wants them called real, log(1 + e^2).
    """
    model, noted = still(stage1.GAN()), moves(stage1)
    real = tf.ones((3, 28, 28, 1))
    model.discriminator.call = lambda x: constant(1.0 if bool(tf.reduce_all(x == real)) else -2.0, x)
    losses = model.train_step((real, None))
    wanted = {"d_real": cross_entropy(1, True), "d_fake": cross_entropy(-2, False)}
    wanted["g_adversarial"] = cross_entropy(-2, True)
    assert {name: float(loss) for name, loss in losses.items()} == pytest.approx(wanted, rel=1e-4)
    sums = [wanted["d_real"] + wanted["d_fake"], wanted["g_adversarial"]]
    assert [loss for loss, *_ in noted] == pytest.approx(sums, rel=1e-4)
    assert [network for _, network, _ in noted] == [model.discriminator, model.generator]
    assert [by for *_, by in noted] == [model.discriminator_optimizer, model.generator_optimizer]


def test_the_gan_takes_new_noise_for_each_update(stage1, monkeypatch):
    """Broken if the generator is moved by the batch that the discriminator was, or judged before it.

    Algorithm 1 of the paper: noise, real and generated digits, discriminator; new noise, generator,
    judged by the discriminator as it is then.
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
        assert all(float(tf.norm(gradient)) > 0 for gradient in gradients), "the loss is not of this network"

    model.generator.call, model.discriminator.call = record_draw, record_judge
    monkeypatch.setattr(stage1, "minimise", move)
    model.train_step((tf.random.stateless_normal((4, 28, 28, 1), (0, 0)), None))
    assert told == [
        *["drawn", "judged", "judged", "discriminator moved"],
        *["drawn", "judged", "generator moved"],
    ]
    assert noises[0].shape == noises[1].shape == (4, stage1.LATENT)
    assert not bool(tf.reduce_any(noises[0] == noises[1]))


@pytest.mark.parametrize("wrong_labels", [True, False])
def test_losses_of_the_cgan_by_hand(stage2, moves, wrong_labels):
    """Broken if stage 2 leaves a term out, calls real digits under a wrong label real, or adds one.

    Real digits under their own label get 1, generated ones -2, real ones under a wrong label 3.
    """
    model, noted = still(stage2.ConditionalGAN(wrong_labels)), moves(stage2)
    real, label = tf.ones((3, 28, 28, 1)), tf.one_hot([4, 0, 9], 10)

    def judge(picture, label_shown, training):
        if not bool(tf.reduce_all(picture == real)):
            return constant(-2.0, picture)
        return constant(1.0 if bool(tf.reduce_all(label_shown == label)) else 3.0, picture)

    model.discriminator.call = judge
    losses = model.train_step((real, label))
    wanted = {"d_real": cross_entropy(1, True), "d_fake": cross_entropy(-2, False)}
    wanted["g_adversarial"] = cross_entropy(-2, True)
    if wrong_labels:
        wanted["d_wrong"] = cross_entropy(3, False)
    assert {name: float(loss) for name, loss in losses.items()} == pytest.approx(wanted, rel=1e-4)
    adversarial = wanted["g_adversarial"]
    sums = [adversarial, sum(wanted.values()) - adversarial]
    assert [loss for loss, *_ in noted] == pytest.approx(sums, rel=1e-4)
    assert [network for _, network, _ in noted] == [model.generator, model.discriminator]
    assert [by for *_, by in noted] == [model.generator_optimizer, model.discriminator_optimizer]


def test_wrong_labels_are_all_others(stage2, moves):
    """Broken if a right label is shown as a wrong one, or some wrong label never."""
    model = still(stage2.ConditionalGAN())
    moves(stage2)
    real, label, turns = tf.ones((1, 28, 28, 1)), tf.one_hot([4], 10), set()

    def judge(picture, label_shown, training):
        if bool(tf.reduce_all(picture == real)):
            turns.add((int(tf.argmax(label_shown[0])) - 4) % 10)
        return tf.zeros((1, 1))

    keras.utils.set_random_seed(0)
    model.random = keras.random.SeedGenerator(0)
    model.generator.call, model.discriminator.call = lambda noise, label, **_: -real, judge
    for _ in range(100):  # each of nine stays away from all of these in 7 of a million times
        model.train_step((real, label))
    assert turns == set(range(10)), "0 is the real digit under its own label"
    turns.clear()
    shown = []
    model.discriminator.call = lambda picture, label_shown, training: (
        shown.append(int(tf.argmax(label_shown[0]))) or tf.zeros((1, 1))
    )
    for _ in range(100):
        model.train_step((real, label))
    assert 4 not in shown[2::3] and set(shown[0::3]) == set(shown[1::3]) == {4}


@pytest.mark.parametrize("loss, terms", [("l1+cgan", {"l1", "cgan"}), ("cgan", {"cgan"}), ("l1", {"l1"})])
def test_losses_of_pix2pix_by_hand(stage5, moves, loss, terms):
    """Broken if a term is missing, or has another weight, in what moves the generator.

    A generator that draws gray (0) where white (1) is wanted: L1 is 1. Logits: real 1, generated -2.
    """
    model, noted = still(stage5.Pix2Pix(loss, lambda_l1=7.0, filters=1)), moves(stage5)
    condition, real = tf.zeros((1, 256, 256, 3)), tf.ones((1, 256, 256, 3))
    model.generator.call = lambda x, training: x
    model.discriminator.call = lambda condition, picture, training: tf.fill(
        (1, 30, 30, 1), 1.0 if float(picture[0, 0, 0, 0]) == 1.0 else -2.0
    )
    losses = model.train_step((condition, real))
    wanted = {"g_l1": 1.0}
    g_loss, d_loss = 7.0 * ("l1" in terms), 0.0
    if "cgan" in terms:
        wanted |= {"d_real": cross_entropy(1, True), "d_fake": cross_entropy(-2, False)}
        wanted["g_adversarial"] = cross_entropy(-2, True)
        g_loss += wanted["g_adversarial"]
        d_loss = wanted["d_real"] + wanted["d_fake"]
    assert {name: float(loss) for name, loss in losses.items()} == pytest.approx(wanted, rel=1e-4)
    wanted_moves = [(g_loss, model.generator, model.generator_optimizer)]
    if "cgan" in terms:
        wanted_moves.append((d_loss, model.discriminator, model.discriminator_optimizer))
    assert [loss for loss, *_ in noted] == pytest.approx([move[0] for move in wanted_moves], rel=1e-4)
    assert [move[1:] for move in noted] == [move[1:] for move in wanted_moves]


@pytest.mark.parametrize("precision", ["float32", "mixed_float16"])
def test_minimise_moves_by_the_gradient(precision):
    """Broken if a step is not rate * gradient, down the hill, or if float16's scale stays in it.

    Of loss 3 w the gradient is 3: with a rate of 0.5, w goes from 1 to -0.5.
    """
    layer = keras.layers.Dense(1, use_bias=False, kernel_initializer="ones", dtype="float32")
    layer.build((1, 1))
    optimizer = keras.optimizers.SGD(0.5)
    if precision == "mixed_float16":
        optimizer = common.LossScale(optimizer)
    optimizer.build(layer.trainable_variables)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(3.0 * layer(tf.ones((1, 1))))
    common.minimise(loss, tape, layer, optimizer)
    assert float(layer.kernel.value[0, 0]) == pytest.approx(-0.5)


def test_float16_keeps_faint_gradients():
    """Broken if a gradient of 1e-8, which float16 has for zero, no longer moves a weight."""
    keras.config.set_dtype_policy("mixed_float16")
    try:
        layer = keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")
        layer.build((1, 1))
        optimizer = common.adam(0.1, 0.5)
        optimizer.build(layer.trainable_variables)
        with tf.GradientTape() as tape:
            loss = 1e-8 * tf.reduce_sum(tf.cast(layer(tf.ones((1, 1))), tf.float32))
        common.minimise(loss, tape, layer, optimizer)
        assert float(layer.kernel.value[0, 0]) < 1.0
    finally:
        keras.config.set_dtype_policy("float32")
    assert float(common.adam(0.1, 0.5).scale_loss(1.0)) == 1.0


def test_adam_is_keras_own():
    """Broken if the compiled update is not Adam's: three steps, two weights, gradients of both signs."""
    steps = [([1.0, -2.0], [[0.5]]), ([0.1, 0.0], [[-3.0]]), ([-1.0, 4.0], [[0.25]])]
    results = []
    for optimizer in (common.adam(0.1, 0.5), keras.optimizers.Adam(0.1, beta_1=0.5)):
        variables = [keras.Variable([1.0, 2.0]), keras.Variable([[3.0]])]
        optimizer.build(variables)
        for gradients in steps:
            optimizer.apply([tf.constant(gradient) for gradient in gradients], variables)
        results.append([*variables, *optimizer.variables])
    for ours, theirs in zip(*results):
        tf.debugging.assert_near(
            tf.cast(ours.value, tf.float32), tf.cast(theirs.value, tf.float32), rtol=1e-5, atol=1e-6
        )


def test_the_optimisers_of_pix2pix_are_the_papers(stage5, stage1):
    """Broken if the rate, beta_1 or the weight of L1 is not that of section 3.3 and of appendix 6.2."""
    assert (stage5.LEARNING_RATE, stage5.BETA_1, stage5.LAMBDA_L1) == (2e-4, 0.5, 100.0)
    assert (stage1.LEARNING_RATE, stage1.BETA_1) == (2e-4, 0.5)
    optimizer = common.adam(2e-4, 0.5)
    assert float(optimizer.learning_rate) == pytest.approx(2e-4) and optimizer.beta_1 == 0.5


# === The networks' blocks ===================================================


def test_blocks_by_hand():
    """Broken if an encoder's activation does not leak 0.2, a decoder's leaks, or a kernel has another size.

    Without batchnorm an encoder block is LeakyReLU(convolution). In a decoder block, nothing is below 0.
    """
    x = tf.random.stateless_normal((1, 8, 8, 3), (0, 0))
    block = common.EncodeBlock(4, batchnorm=False)
    y = block(x, training=True)
    convolved = tf.nn.conv2d(x, block.conv.kernel.value, 2, "SAME")
    tf.debugging.assert_near(y, tf.where(convolved > 0, convolved, 0.2 * convolved), atol=1e-5)
    assert block.conv.kernel.shape == (4, 4, 3, 4) and y.shape == (1, 4, 4, 4)
    block = common.DecodeBlock(4)
    y = block(x, training=True)
    convolved = tf.nn.conv2d_transpose(x, block.conv.kernel.value, (1, 16, 16, 4), 2, "SAME")
    mean, variance = tf.nn.moments(convolved, (0, 1, 2))
    tf.debugging.assert_near(y, tf.nn.relu((convolved - mean) / tf.sqrt(variance + 1e-5)), atol=1e-4)
    assert block.batchnorm.epsilon == 1e-5 == common.EncodeBlock(4).batchnorm.epsilon


def test_dropout_is_in_the_first_three_decoder_blocks():
    """Broken if the generator's only noise is in other layers, or drops another share than half."""
    rates = [block.dropout.rate if block.dropout else 0 for block in common.decoder_blocks(1)]
    assert rates == [0.5, 0.5, 0.5, 0, 0, 0, 0]
    block = common.DecodeBlock(64, dropout=0.5)
    x = tf.random.stateless_normal((1, 16, 16, 8), (0, 0))
    zero = float(tf.reduce_mean(tf.cast(block(x, training=True) == 0, tf.float32)))
    assert zero == pytest.approx(0.75, abs=0.02), "half are negative, and half of the others dropped"


def test_kernels_of_all_layers():
    """Broken if any layer of a generator or discriminator is not N(0, 0.02) at first, or has a bias."""
    picture = tf.zeros((1, 256, 256, 3))
    unet, patchgan = common.UNet(16), common.PatchGAN(16)
    unet(picture, training=False), patchgan(picture, picture, training=False)
    for network, last in ((unet, unet.to_picture), (patchgan, patchgan.to_logits)):
        kernels = [v for v in network.trainable_variables if v.path.endswith("kernel")]
        assert len(kernels) == {unet: 16, patchgan: 5}[network]
        for kernel in kernels:
            assert float(tf.math.reduce_std(kernel.value)) == pytest.approx(0.02, rel=0.12), kernel.path
            assert abs(float(tf.reduce_mean(kernel.value))) < 0.003, kernel.path
        (bias,) = [v for v in network.trainable_variables if v.path.endswith("bias")]
        assert bias.value is last.bias.value and float(tf.reduce_max(tf.abs(bias.value))) == 0.0


def test_pictures_and_logits_have_their_ranges():
    """Broken if a picture can leave [-1, 1], or a logit cannot: the losses take logits."""
    picture = 100.0 * tf.random.stateless_normal((1, 256, 256, 3), (0, 0))
    unet, patchgan = common.UNet(2), common.PatchGAN(2)
    unet(picture, training=False), patchgan(picture, picture, training=False)
    unet.to_picture.kernel.assign(unet.to_picture.kernel * 1e4)
    patchgan.to_logits.kernel.assign(patchgan.to_logits.kernel * 1e4)
    drawn = unet(picture, training=True)
    assert float(tf.reduce_max(tf.abs(drawn))) <= 1.0 and float(tf.reduce_min(drawn)) < -0.9
    logits = patchgan(picture, picture, training=True)
    assert float(tf.reduce_max(logits)) > 2.0 and float(tf.reduce_min(logits)) < -2.0


def test_each_dropout_layer_has_a_seed_of_its_own():
    """Broken if `generate` gives all dropout layers one state, or drops its seed on the way."""
    generator, states = common.UNet(1), []
    generator(tf.zeros((1, 256, 256, 3)), training=False)

    def note(trainable, state, condition, training):
        seeds = [v for v, own in zip(state, generator.non_trainable_variables) if "seed" in own.path]
        states.append([tuple(int(n) for n in seed) for seed in seeds])
        assert training
        return condition, state

    generator.stateless_call = note
    for seed in (0, 1):
        common.generate(generator, tf.zeros((1, 256, 256, 3)), seed)
    assert len(set(states[0])) == len(states[0]) == 3
    assert not set(states[0]) & set(states[1])


def test_the_discriminator_of_stage_2_drops_in_training(stage2):
    """Broken if `training` is not handed on to Maxout: the paper's discriminator has dropout."""
    network = stage2.Discriminator()
    digit, label = tf.random.stateless_normal((1, 28, 28, 1), (0, 0)), tf.one_hot([3], 10)
    judged = [float(network(digit, label, training=False)[0, 0]) for _ in range(2)]
    assert judged[0] == judged[1]
    trained = {float(network(digit, label, training=True)[0, 0]) for _ in range(5)}
    assert len(trained) == 5
    for maxout, names in ((network.from_picture, (240, 5)), (network.from_label, (50, 5))):
        assert maxout.split.target_shape == names and maxout.dropout.rate == 0.5
        inputs = tf.ones((1, maxout.maps.kernel.shape[0]))
        drawn = [maxout(inputs, training=True) for _ in range(2)]
        assert bool(tf.reduce_any(drawn[0] != drawn[1]))


def test_digits_have_their_range(stage1, stage2):
    """Broken if digits cannot be as black as real ones, -1, or can leave [-1, 1]."""
    noise, label = 100.0 * tf.random.stateless_normal((20, 100), (0, 0)), tf.one_hot([1] * 20, 10)
    for digits in (stage1.Generator()(noise), stage2.Generator()(noise, label)):
        assert digits.shape == (20, 28, 28, 1)
        assert -1.0 <= float(tf.reduce_min(digits)) < -0.9 and 0.9 < float(tf.reduce_max(digits)) <= 1.0


def test_the_discriminator_of_stage_2_hands_training_on(stage2):
    """Broken if one of its three Maxouts drops nothing in training, or drops in inference."""
    network, told = stage2.Discriminator(), []
    inputs = tf.zeros((1, 28, 28, 1)), tf.zeros((1, 10))
    network(*inputs, training=False)
    for maxout in (network.from_picture, network.from_label, network.hidden):
        drop = maxout.dropout.call
        maxout.dropout.call = lambda x, training, drop=drop: (
            told.append(training) or drop(x, training=training)
        )
    for training in (True, False):
        told.clear()
        network(*inputs, training=training)
        assert told == [training] * 3


def test_the_digit_that_was_asked_for(stage2, call_main, monkeypatch, tmp_path):
    """Broken if --digit draws another digit, or with other weights than the run's."""
    drawn = []
    model = stage2.ConditionalGAN()
    (tmp_path / "run").mkdir()
    model.generator.save_weights(tmp_path / "run" / "generator.weights.h5")
    monkeypatch.setattr(stage2, "draw_digits", lambda path, *rest: drawn.append((path.name, *rest)))
    done = call_main("02_cgan_mnist.py", "--digit", 7, "--seed", 3, "--out", "run")
    assert done.returncode == 0, done.stderr
    ((name, generator, digits, seed),) = drawn
    assert (name, digits, seed) == ("digit_7.png", [7], 3)
    for ours, theirs in zip(generator.weights, model.generator.weights):
        assert bool(tf.reduce_all(ours.value == theirs.value))


def test_digits_are_drawn_in_rows_of_one_label(stage2, monkeypatch, tmp_path):
    """Broken if result.png's rows are not of their own digit, or its columns not of one noise."""
    asked, grids = [], []

    def generator(noise, label, training):
        asked.append((noise, label))
        return tf.zeros((len(noise), 28, 28, 1))

    monkeypatch.setattr(common, "save_grid", lambda path, rows, **titles: grids.append((rows, titles)))
    stage2.draw_digits(tmp_path / "digits.png", generator, [3, 7], seed=0)
    assert [[int(n) for n in tf.argmax(label, axis=1)] for _, label in asked] == [[3] * 10, [7] * 10]
    assert bool(tf.reduce_all(asked[0][0] == asked[1][0]))
    ((rows, titles),) = grids
    assert [len(row) for row in rows] == [10, 10] and list(titles["row_titles"]) == [3, 7]


# === Stage 4 ================================================================


def test_fitting_lowers_the_loss(stage4):
    """Broken if stage 4's fits train nothing, one pair alone, or with another rate than asked for."""

    class Weight(keras.Model):
        def __init__(self):
            super().__init__()
            self.layer = keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")
            self.layer.build((1, 1))
            self.built = True

        def call(self, x, training):
            return self.layer(x)

    network, seen = Weight(), []
    examples = [(tf.fill((1, 1), value), tf.fill((1, 1), 3.0 * value)) for value in (1.0, 2.0)]

    def loss_of(network, x, wanted):
        tf.py_function(lambda value: seen.append(float(value)), [x[0, 0]], [])
        return tf.reduce_mean(tf.abs(wanted - network(x, training=True)))

    stage4.fit(network, loss_of, examples, 5, 0.1)
    assert seen == [1.0, 2.0, 1.0, 2.0, 1.0]
    weight = float(network.layer.kernel.value[0, 0])
    assert weight == pytest.approx(0.5, rel=0.05), "Adam's steps of one sign are of the size of the rate"
    stage4.fit(network, stage4.l1_loss, examples, 60, 0.1)
    assert float(network.layer.kernel.value[0, 0]) == pytest.approx(3.0, abs=0.3)


def test_losses_of_stage_4_by_hand(stage4):
    """Broken if the PatchGAN is fitted to call fake real, or L1 is not the mean distance."""

    def discriminator(sketch, picture, training):
        assert training
        return tf.fill((1, 30, 30, 1), 1.0 if float(picture[0, 0, 0, 0]) > 0 else -2.0)

    shape = (1, 4, 4, 3)
    sketch, real, fake = tf.zeros(shape), tf.ones(shape), tf.fill(shape, -0.5)
    loss = float(stage4.real_or_fake_loss(discriminator, sketch, real, fake))
    assert loss == pytest.approx(cross_entropy(1, True) + cross_entropy(-2, False), rel=1e-4)
    assert float(stage4.l1_loss(lambda x, training: x, sketch, fake)) == pytest.approx(0.5)
    assert stage4.mean_l1(tf.identity, [(sketch, real), (sketch, fake)]) == pytest.approx(0.75)


def test_pairs_of_stage_4_are_not_augmented(stage4, few_pairs):
    """Broken if stage 4 fits mirrored or cropped pairs, or some of them twice."""
    paths = common.find_pairs(few_pairs)["train"]
    pairs = stage4.some_pairs(paths, 4)
    stored = [common.read_stack(path, "AtoB") for path in paths]
    found = []
    for pair in pairs:
        stack = tf.concat(pair, axis=-1)[0]
        found += [n for n, other in enumerate(stored) if bool(tf.reduce_all(tf.abs(stack - other) < 1e-5))]
    assert sorted(found) == [0, 1, 2, 3]


def test_skips_png_shows_both_generators(stage4, monkeypatch, tmp_path):
    """Broken if a column of skips.png is another generator's than its title says."""
    grids = []
    monkeypatch.setattr(common, "save_grid", lambda path, rows, **titles: grids.append((rows, titles)))
    monkeypatch.setattr(stage4, "generate", lambda generator, condition: condition + generator)
    pairs = [(tf.fill((1, 2, 2, 3), float(n)), tf.fill((1, 2, 2, 3), 100.0 + n)) for n in range(2)]
    stage4.draw_skips(tmp_path / "x.png", 10.0, 20.0, pairs[:1], pairs[1:])
    ((rows, titles),) = grids
    assert [[float(tile[0, 0, 0]) for tile in row] for row in rows] == [[0, 10, 20, 100], [1, 11, 21, 101]]
    assert titles["titles"] == ["sketch", "Encoder-Decoder", "U-Net", "real"]
    assert [title.split()[0] for title in titles["row_titles"]] == ["trained", "validation:"]


def test_the_encoder_decoder_has_no_way_past_its_bottleneck(stage4):
    """Broken if the network without skips has one, or the U-Net, beside it, none.

    With a bottleneck that is zero, what comes out does not depend on the sketch.
    """

    class Zero(keras.layers.Layer):
        def call(self, x, training):
            return 0.0 * x[:, ::2, ::2]

    sketches = [tf.random.stateless_normal((1, 256, 256, 3), (n, 0)) for n in (0, 1)]
    encoder_decoder, unet = stage4.EncoderDecoder(2), common.UNet(2)
    for network in (encoder_decoder, unet):
        network(sketches[0], training=False)  # makes the weights
    encoder_decoder.blocks[7] = Zero()
    unet.encoder[7] = Zero()
    drawn = [[network(sketch, training=True) for sketch in sketches] for network in (encoder_decoder, unet)]
    # Dropout differs from call to call, but drops zeros.
    assert float(tf.reduce_max(tf.abs(drawn[0][0] - drawn[0][1]))) < 1e-6
    assert float(tf.reduce_max(tf.abs(drawn[1][0] - drawn[1][1]))) > 1e-3
