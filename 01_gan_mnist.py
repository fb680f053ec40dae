"""Stage 1: a GAN. Noise goes in, a handwritten digit comes out.

A generator turns noise into pictures; a discriminator learns to tell them from real digits; the
generator learns to fool it. They play a minimax game, and nobody tells the generator what a
digit is (Goodfellow et al. 2014, "Generative Adversarial Nets", section 3).

    python 01_gan_mnist.py --epochs 10

Writes under runs/01_gan_mnist: result.png (digits from noise), losses.csv, losses.png, samples/
after each epoch (always the same noise), the weights. If you run it again, it continues where it
stopped. It takes about a minute on 2 cores.
"""

import common
from common import AdversarialModel, adversarial_loss, minimise

import keras
import tensorflow as tf
from keras import layers

LATENT = 100  # length of the noise vector that becomes a digit
LEARNING_RATE, BETA_1 = 2e-4, 0.5  # for both networks, as in DCGAN (Radford et al. 2016, section 4)
GRID = 10  # result.png shows GRID x GRID digits
ROW_EVERY = 39  # steps between two rows of losses.csv: twelve rows an epoch


class Generator(keras.Model):
    """Noise (B, 100) -> digits (B, 28, 28, 1) in [-1, 1]."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.hidden = [
            layers.Dense(128, activation="relu"),  # (B, 128)
            layers.Dense(256, activation="relu"),  # (B, 256)
            layers.Dense(512, activation="relu"),  # (B, 512)
        ]
        # float32 even with --precision mixed_...: pictures and losses need its accuracy.
        self.to_pixels = layers.Dense(784, activation="tanh", dtype="float32")  # (B, 784)
        self.to_picture = layers.Reshape((28, 28, 1), dtype="float32")  # (B, 28, 28, 1)

    def call(self, x):
        for layer in self.hidden:
            x = layer(x)
        return self.to_picture(self.to_pixels(x))


class Discriminator(keras.Model):
    """Digits (B, 28, 28, 1) in [-1, 1] -> logits (B, 1), positive for real."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.flatten = layers.Flatten()  # (B, 784)
        self.hidden = [
            layers.Dense(512, activation="relu"),  # (B, 512)
            layers.Dense(256, activation="relu"),  # (B, 256)
            layers.Dense(128, activation="relu"),  # (B, 128)
        ]
        self.to_logit = layers.Dense(1, dtype="float32")  # (B, 1)

    def call(self, x):
        x = self.flatten(x)
        for layer in self.hidden:
            x = layer(x)
        return self.to_logit(x)


class GAN(AdversarialModel):
    """The generator, the discriminator, and the game between them."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.generator = Generator(name="generator")
        self.discriminator = Discriminator(name="discriminator")
        self.random = keras.random.SeedGenerator()  # source of noise; checkpoints keep its state
        self.discriminator(self.generator(tf.zeros((1, LATENT))))  # the first call makes weights

    def train_step(self, batch):
        # Algorithm 1 of the paper with k = 1: it updates the discriminator, then draws new noise
        # and updates the generator against the new discriminator. Stages 2 and 5 use one
        # generated batch for both updates, which is faster. These networks train worse that way:
        # they draw no digits after ten epochs.
        real, _ = batch  # (B, 28, 28, 1); a GAN does not use the label
        losses = {}

        # Discriminator: minimise -log D(x) - log(1 - D(G(z))).
        fake = self.generator(self.noise(tf.shape(real)[0], LATENT), training=True)
        with tf.GradientTape() as tape:
            real_logits = self.discriminator(real, training=True)  # (B, 1)
            fake_logits = self.discriminator(fake, training=True)
            losses["d_real"] = adversarial_loss(real_logits, real=True)
            losses["d_fake"] = adversarial_loss(fake_logits, real=False)
            d_loss = losses["d_real"] + losses["d_fake"]
        minimise(d_loss, tape, self.discriminator, self.discriminator_optimizer)

        # Generator: minimise -log D(G(z)).
        noise = self.noise(tf.shape(real)[0], LATENT)
        with tf.GradientTape() as tape:
            fake_logits = self.discriminator(self.generator(noise, training=True), training=True)
            losses["g_adversarial"] = adversarial_loss(fake_logits, real=True)
        minimise(losses["g_adversarial"], tape, self.generator, self.generator_optimizer)
        return losses


def main(argv=None):
    parser = common.parser_of(__doc__, common.TRAINER, out="runs/01_gan_mnist", batch_size=128)
    args = parser.parse_args(argv)
    common.set_devices(args)
    digits, labels = common.load_mnist()
    steps = common.epoch_steps(args, len(digits))
    run = common.start_run(args, "gan", {"digits": len(digits)}, common.MNIST_FILES)

    # The game: two networks, an optimiser for each, and batches of real digits.
    model = GAN()
    model.generator_optimizer = common.adam(model.generator, LEARNING_RATE, BETA_1)
    model.discriminator_optimizer = common.adam(model.discriminator, LEARNING_RATE, BETA_1)

    def batches(**span):
        kind = {"batch_size": args.batch_size, "seed": args.seed}
        return common.training_digits(digits, labels, **kind, **span)

    def draw(path):
        noise = tf.random.stateless_normal((GRID * GRID, LATENT), seed=(args.seed, 0))
        pictures = tf.unstack(model.generator(noise, training=False))
        common.save_grid(path, [pictures[row::GRID] for row in range(GRID)], scale=2.0)

    pace = {"steps_per_epoch": steps, "row_every": ROW_EVERY}
    common.train(model, run, batches, args, draw=draw, **pace)
    draw(run / "result.png")
    print(
        f"{run / 'result.png'}  digits from noise\n"
        f"{run / 'losses.png'}  from losses.csv\n"
        f"{run / 'samples'}  the same noise after each epoch\n"
        f"{run / 'generator.weights.h5'}\n"
        "Look at result.png: are all ten digits there, or does the generator repeat a few?\n"
        "Next: python 02_cgan_mnist.py, which draws the digit you ask for"
    )


if __name__ == "__main__":
    common.run_main(main)
