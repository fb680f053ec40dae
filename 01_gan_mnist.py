"""Stage 1: a GAN. Noise goes in, a handwritten digit comes out.

A generator turns noise into pictures; a discriminator learns to tell them from real
digits; the generator learns to be taken for real. They play a minimax game, and no one
tells the generator what a digit is (Goodfellow et al. 2014, "Generative Adversarial
Nets", section 3).

    python 01_gan_mnist.py --epochs 10

Writes under runs/01_gan_mnist: result.png (digits from noise), losses.csv, losses.png,
samples/ after each epoch (always the same noise), the weights. Run again, it goes on
where it stopped. Takes about a minute on 2 cores.
"""

import functools

from common import (
    MNIST_FILES,
    AdversarialModel,
    adam,
    contents_of,
    discriminator_losses,
    epoch_steps,
    fit,
    generator_loss,
    load_mnist,
    run_main,
    save_grid,
    set_devices,
    start_run,
    steps_per_execution,
    trainer_arguments,
    training_digits,
)

import keras
import tensorflow as tf
from keras import layers

LATENT = 100  # numbers of noise that a digit is made from
LEARNING_RATE, BETA_1 = 2e-4, 0.5  # of both networks, as in DCGAN (Radford et al. 2016, section 4)
GRID = 10  # rows and columns of the pictures


class Generator(keras.Model):
    """Noise (B, 100) -> digits (B, 28, 28, 1) in [-1, 1]."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.hidden = [
            layers.Dense(128, activation="relu"),  # (B, 128)
            layers.Dense(256, activation="relu"),  # (B, 256)
            layers.Dense(512, activation="relu"),  # (B, 512)
        ]
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
        self.random = keras.random.SeedGenerator()  # of the noise; saved with the weights
        self.discriminator(self.generator(tf.zeros((1, LATENT))))  # the first call makes the weights
        self.built = True

    def train_step(self, batch):
        # Algorithm 1 of the paper with k = 1: first the discriminator, then, with new noise,
        # the generator against the discriminator as it is now. Stages 2 and 5 use one
        # generated batch for both updates, which is faster; here that drew no digits.
        real, _ = batch  # (B, 28, 28, 1); what digit it is, a GAN does not ask
        losses = {}

        # Discriminator: minimise -log D(x) - log(1 - D(G(z))).
        fake = self.generator(self.noise(tf.shape(real)[0], LATENT), training=True)
        with tf.GradientTape() as tape:
            real_logits = self.discriminator(real, training=True)  # (B, 1)
            fake_logits = self.discriminator(fake, training=True)
            losses["d_real"], losses["d_fake"] = discriminator_losses(real_logits, fake_logits)
            d_loss = self.discriminator_optimizer.scale_loss(losses["d_real"] + losses["d_fake"])
        variables = self.discriminator.trainable_variables
        self.discriminator_optimizer.apply(tape.gradient(d_loss, variables), variables)

        # Generator: minimise -log D(G(z)).
        noise = self.noise(tf.shape(real)[0], LATENT)
        with tf.GradientTape() as tape:
            fake_logits = self.discriminator(self.generator(noise, training=True), training=True)
            losses["g_adversarial"] = generator_loss(fake_logits)
            g_loss = self.generator_optimizer.scale_loss(losses["g_adversarial"])
        variables = self.generator.trainable_variables
        self.generator_optimizer.apply(tape.gradient(g_loss, variables), variables)
        return losses


def main():
    parser = trainer_arguments(__doc__, epochs=10, batch_size=128, out="01_gan_mnist")
    args = parser.parse_args()
    set_devices(args)
    digits, labels = load_mnist()
    steps = epoch_steps(args, len(digits))
    run = start_run(args, {"digits": len(digits)}, contents_of(MNIST_FILES))

    batches = functools.partial(training_digits, digits, labels, batch_size=args.batch_size, seed=args.seed)

    def draw(path):
        noise = tf.random.stateless_normal((GRID * GRID, LATENT), seed=(args.seed, 0))  # always the same
        pictures = tf.unstack(model.generator(noise, training=False))
        save_grid(path, [pictures[row::GRID] for row in range(GRID)], scale=2.0)

    model = GAN()
    every = steps_per_execution(steps)
    model.compile(adam(LEARNING_RATE, BETA_1), adam(LEARNING_RATE, BETA_1), steps_per_execution=every)
    fit(model, run, batches, args, steps_per_epoch=steps, draw=draw, log_every=every)
    draw(run / "result.png")
    print(
        f"{run / 'result.png'}  digits from noise\n"
        f"{run / 'losses.png'}  from losses.csv\n"
        f"{run / 'samples'}  the same noise after each epoch\n"
        f"{run / 'generator.weights.h5'}"
    )


if __name__ == "__main__":
    run_main(main)
