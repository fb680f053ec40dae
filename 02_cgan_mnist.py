"""Stage 2: a conditional GAN. Noise and a label go in, the digit of that label comes out.

Both networks get the label. So you can ask the generator for a digit, and the discriminator
answers "Is this a real 7?" instead of "Is this real?" (Mirza & Osindero 2014, "Conditional
Generative Adversarial Nets", sections 3.2 and 4.1).

    python 02_cgan_mnist.py --epochs 10
    python 02_cgan_mnist.py --digit 7

The networks can ignore the label: it is ten numbers beside 784 pixels, and a discriminator that
judges the handwriting alone wins for a long time. With this plain recipe, the strokes look real
but do not depend on the label:

    python 02_cgan_mnist.py --learning-rate 1e-4 --beta-1 0.9 --no-wrong-labels --out runs/plain

Two changes cure that:
1. Wrong labels: the discriminator also sees real digits with a wrong label and should call
   them fake (Reed et al. 2016, "Generative Adversarial Text to Image Synthesis", section 4.2).
   Only the label can give these away, so the discriminator has to look at it.
2. Adam(5e-4, beta_1=0.5) for both networks: steps five times as large, so that ten epochs are
   enough, and less momentum, because in a game an old direction is soon wrong.

A third of what the discriminator sees is real. If it cannot tell real from fake, it answers 1/3:
d_real = log 3 = 1.10, d_fake = d_wrong = log 1.5 = 0.41. (Reed et al. halve the fakes' losses.)

Writes under runs/02_cgan_mnist: result.png (a row for each digit, the same noise down each
column), losses.csv, losses.png, samples/, the weights. It takes 2 to 4 minutes on 2 cores.
"""

import argparse

import common
from common import AdversarialModel, adversarial_loss, minimise

import keras
import tensorflow as tf
from keras import layers

LATENT = 100
LABELS = 10
COLUMNS = 10  # digits of one label in a row of result.png
ROW_EVERY = 39  # steps between two rows of losses.csv: twelve rows an epoch


class Generator(keras.Model):
    """Noise (B, 100) and one-hot label (B, 10) -> digits (B, 28, 28, 1) in [-1, 1]."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.from_noise = layers.Dense(256, activation="relu")  # (B, 256)
        self.from_label = layers.Dense(256, activation="relu")  # (B, 256)
        self.join = layers.Concatenate()  # (B, 512)
        self.hidden = layers.Dense(512, activation="relu")  # (B, 512)
        self.to_pixels = layers.Dense(784, activation="tanh", dtype="float32")  # (B, 784)
        self.to_picture = layers.Reshape((28, 28, 1), dtype="float32")  # (B, 28, 28, 1)

    def call(self, noise, label):
        x = self.join([self.from_noise(noise), self.from_label(label)])
        return self.to_picture(self.to_pixels(self.hidden(x)))


class Maxout(layers.Layer):
    """The largest of `pieces` linear maps, for each unit: a learned activation function.

    (B, features) -> (B, units): Goodfellow et al. 2013, "Maxout Networks". In training, half of
    the maps' values are dropped before the largest is taken; the paper drops the inputs instead.
    """

    def __init__(self, units, pieces, **kwargs):
        super().__init__(**kwargs)
        self.maps = layers.Dense(units * pieces)  # (B, units * pieces)
        self.split = layers.Reshape((units, pieces))  # (B, units, pieces)
        self.dropout = layers.Dropout(0.5)

    def call(self, x, training):
        x = self.dropout(self.split(self.maps(x)), training=training)
        return tf.reduce_max(x, axis=-1)


class Discriminator(keras.Model):
    """Digits (B, 28, 28, 1) in [-1, 1] and one-hot label (B, 10) -> logits (B, 1)."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.flatten = layers.Flatten()  # (B, 784)
        self.from_picture = Maxout(240, 5)  # (B, 240)
        self.from_label = Maxout(50, 5)  # (B, 50)
        self.join = layers.Concatenate()  # (B, 290)
        self.hidden = Maxout(240, 4)  # (B, 240)
        self.to_logit = layers.Dense(1, dtype="float32")  # (B, 1)

    def call(self, picture, label, training):
        picture = self.from_picture(self.flatten(picture), training=training)
        x = self.join([picture, self.from_label(label, training=training)])
        return self.to_logit(self.hidden(x, training=training))


class ConditionalGAN(AdversarialModel):
    """The generator, the discriminator, and the game between them, played for a given label.

    Args:
        wrong_labels: show the discriminator real digits with wrong labels, too.
    """

    def __init__(self, wrong_labels=True, **kwargs):
        super().__init__(**kwargs)
        self.wrong_labels = wrong_labels
        self.generator = Generator(name="generator")
        self.discriminator = Discriminator(name="discriminator")
        self.random = keras.random.SeedGenerator()  # source of noise and wrong labels
        label = tf.zeros((1, LABELS))
        self.discriminator(self.generator(tf.zeros((1, LATENT)), label), label, training=False)

    def train_step(self, batch):
        real, label = batch  # (B, 28, 28, 1), (B, 10)
        noise = self.noise(tf.shape(real)[0], LATENT)
        losses = {}
        with tf.GradientTape() as g_tape, tf.GradientTape() as d_tape:
            fake = self.generator(noise, label, training=True)
            real_logits = self.discriminator(real, label, training=True)  # (B, 1)
            fake_logits = self.discriminator(fake, label, training=True)
            losses["d_real"] = adversarial_loss(real_logits, real=True)
            losses["d_fake"] = adversarial_loss(fake_logits, real=False)
            losses["g_adversarial"] = adversarial_loss(fake_logits, real=True)
            d_loss = losses["d_real"] + losses["d_fake"]
            if self.wrong_labels:
                # Rolling the one-hot label by 1 to 9 places gives any label but the right one.
                turn = keras.random.randint((), 1, LABELS, seed=self.random)
                wrong_logits = self.discriminator(real, tf.roll(label, turn, axis=1), training=True)
                losses["d_wrong"] = adversarial_loss(wrong_logits, real=False)
                d_loss += losses["d_wrong"]

        # Generator: minimise -log D(G(z|y)|y).
        minimise(losses["g_adversarial"], g_tape, self.generator, self.generator_optimizer)
        # Discriminator: minimise -log D(x|y) - log(1 - D(G(z|y)|y)) [- log(1 - D(x|wrong y))].
        minimise(d_loss, d_tape, self.discriminator, self.discriminator_optimizer)
        return losses


def draw_digits(path, generator, digits, seed):
    """Draws a row for each of `digits`, with the same noise down each column."""
    noise = tf.random.stateless_normal((COLUMNS, LATENT), seed=(seed, 0))
    rows = [
        tf.unstack(generator(noise, tf.one_hot([digit] * COLUMNS, LABELS), training=False))
        for digit in digits
    ]
    common.save_grid(path, rows, row_titles=digits, scale=2.0)


def draw_one_digit(args):
    """Draws digits of one label with the weights of a finished run."""
    common.read_options(args.out, "cgan")
    model = ConditionalGAN()
    common.load_weights(model.generator, args.out / "generator.weights.h5")
    path = args.out / f"digit_{args.digit}.png"
    draw_digits(path, model.generator, [args.digit], args.seed)
    print(path)


def main(argv=None):
    parser = common.parser_of(__doc__, common.TRAINER, out="runs/02_cgan_mnist", batch_size=128)
    add = parser.add_argument
    add("--digit", type=common.number(0, 9, int), metavar="0..9", help="only draw this digit")
    add("--learning-rate", type=common.number(0, 1), default=5e-4, help="of both networks (5e-4)")
    add("--beta-1", type=common.number(0, 0.999), default=0.5, help="of both networks' Adam (0.5)")
    yes_or_no = argparse.BooleanOptionalAction
    add("--wrong-labels", action=yes_or_no, default=True, help="train on wrong labels, too (yes)")
    args = parser.parse_args(argv)
    if args.digit is not None:
        draw_one_digit(args)
        return

    common.set_devices(args)
    digits, labels = common.load_mnist()
    steps = common.epoch_steps(args, len(digits))
    run = common.start_run(args, "cgan", {"digits": len(digits)}, common.MNIST_FILES)

    # The game: two networks, an optimiser for each, and batches of real digits with their labels.
    model = ConditionalGAN(args.wrong_labels)
    rates = args.learning_rate, args.beta_1
    model.generator_optimizer = common.adam(model.generator, *rates)
    model.discriminator_optimizer = common.adam(model.discriminator, *rates)

    def batches(**span):
        kind = {"batch_size": args.batch_size, "seed": args.seed}
        return common.training_digits(digits, labels, **kind, **span)

    def draw(path):
        draw_digits(path, model.generator, range(LABELS), args.seed)

    pace = {"steps_per_epoch": steps, "row_every": ROW_EVERY}
    common.train(model, run, batches, args, draw=draw, **pace)
    draw(run / "result.png")
    print(
        f"{run / 'result.png'}  a row for each digit, the same noise down each column\n"
        f"{run / 'losses.png'}  from losses.csv\n"
        f"{run / 'samples'}  the same noise after each epoch\n"
        f"{run / 'generator.weights.h5'}\n"
        "Look at result.png: does the label decide the digit, and the noise the handwriting?\n"
        "Next: python 02_cgan_mnist.py --digit 7, or python 03_pix2pix_data.py: pictures as labels"
    )


if __name__ == "__main__":
    common.run_main(main)
