"""Exercise 5: the train step of Pix2Pix.

Replace the line `raise NotImplementedError`, which says what belongs there, with your code. Then

    make exercise N=5        (or: python tests/exercises/grade.py 5)

says what is right, what is wrong and what comes next. 05_pix2pix_train.py has a solution; the
course page is docs/course/5-pix2pix.md.
"""

import common
from common import AdversarialModel, PatchGAN, adversarial_loss, minimise

import tensorflow as tf

LAMBDA_L1 = 100.0


class Pix2Pix(AdversarialModel):
    """The generator and the PatchGAN, and the game between them."""

    def __init__(
        self, loss="l1+cgan", lambda_l1=LAMBDA_L1, generator="unet", filters=common.FILTERS,
        norm="batch", **kwargs,
    ):  # fmt: skip
        super().__init__(**kwargs)
        self.terms = loss.split("+")
        self.lambda_l1 = lambda_l1
        self.generator = common.GENERATORS[generator](filters, norm, name="generator")
        self.discriminator = PatchGAN(filters, norm, name="discriminator")
        picture = tf.zeros((1, *common.IMAGE_SIZE, 3))
        self.generator(picture, training=False)  # the first call creates the weights
        self.discriminator(picture, picture, training=False)

    def train_step(self, pair):
        """Updates both networks once, by L1 + cGAN (the other values of `loss` need not work).

        Args:
            pair: condition and real picture, (B, 256, 256, 3) each, in [-1, 1].

        Returns:
            {"g_l1", "g_adversarial", "d_real", "d_fake": loss}.
        """
        # 1. Under two tapes, g_tape and d_tape: the generator draws a fake from the condition.
        # 2. losses["g_l1"] is the mean absolute difference of real and fake.
        # 3. The discriminator judges (condition, real) and (condition, fake): two maps of logits.
        # 4. adversarial_loss(logits, real=True or False) turns them into the other three losses.
        # 5. g_loss is the adversarial loss and lambda_l1 times L1, d_loss the sum of its two.
        # 6. minimise(loss, tape, network, optimizer), once for each network.
        # Every network is called with training=True.
        raise NotImplementedError("write the six steps in Pix2Pix.train_step")
