"""Exercise 1: the discriminator of the GAN, and the losses of its train step.

Replace each line `raise NotImplementedError`, which says what belongs there, with your code. Then

    make exercise N=1        (or: python tests/exercises/grade.py 1)

says what is right, what is wrong and what comes next. 01_gan_mnist.py has a solution; the
course page is docs/course/1-gan.md.
"""

from common import (
    AdversarialModel,
    adversarial_loss,
    minimise,
)

import keras
import tensorflow as tf
from keras import layers

LATENT = 100  # length of the noise vector that becomes a digit


class Generator(keras.Model):
    """Noise (B, 100) -> digits (B, 28, 28, 1) in [-1, 1]. Given, as a model for yours."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.hidden = [
            layers.Dense(128, activation="relu"),  # (B, 128)
            layers.Dense(256, activation="relu"),  # (B, 256)
            layers.Dense(512, activation="relu"),  # (B, 512)
        ]
        self.to_pixels = layers.Dense(784, activation="tanh")  # (B, 784)
        self.to_picture = layers.Reshape((28, 28, 1))  # (B, 28, 28, 1)

    def call(self, x):
        for layer in self.hidden:
            x = layer(x)
        return self.to_picture(self.to_pixels(x))


class Discriminator(keras.Model):
    """Digits (B, 28, 28, 1) in [-1, 1] -> logits (B, 1), positive for real.

    A logit is any number: no sigmoid at the end.
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        # Flatten to (B, 784); then Dense with ReLU to (B, 512), (B, 256), (B, 128);
        # then Dense without activation to (B, 1).
        raise NotImplementedError("make the layers in Discriminator.__init__")

    def call(self, x):
        raise NotImplementedError("send x through the layers in Discriminator.call")


class GAN(AdversarialModel):
    """The generator, the discriminator, and the game between them."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.generator = Generator(name="generator")
        self.discriminator = Discriminator(name="discriminator")
        self.random = keras.random.SeedGenerator()
        self.discriminator(self.generator(tf.zeros((1, LATENT))))  # the first call makes weights

    def train_step(self, batch):
        """Updates both networks once; returns "d_real", "d_fake" and "g_adversarial"."""
        real, _ = batch  # (B, 28, 28, 1); a GAN does not use the label
        losses = {}

        # Discriminator: minimise -log D(x) - log(1 - D(G(z))).
        fake = self.generator(self.noise(tf.shape(real)[0], LATENT), training=True)
        with tf.GradientTape() as tape:
            # The discriminator judges `real` and `fake`. Turn its logits into losses["d_real"]
            # and losses["d_fake"] with `adversarial_loss(logits, real=True or False)`.
            raise NotImplementedError("compute the discriminator's losses in GAN.train_step")
            d_loss = losses["d_real"] + losses["d_fake"]
        minimise(d_loss, tape, self.discriminator, self.discriminator_optimizer)

        # Generator: minimise -log D(G(z)).
        noise = self.noise(tf.shape(real)[0], LATENT)
        with tf.GradientTape() as tape:
            # Judge new fakes made from `noise`; `adversarial_loss` gives losses["g_adversarial"].
            raise NotImplementedError("compute the generator's loss in GAN.train_step")
        minimise(losses["g_adversarial"], tape, self.generator, self.generator_optimizer)
        return losses
