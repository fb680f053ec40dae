"""Does the conditional GAN of stage 2 draw the digit it is asked for, in more than one way?

    python benchmarks/labels.py runs/02_cgan_mnist [another run ...]

A small classifier, trained on the real digits, reads 1,000 drawn ones, 100 of each
label. "As asked" is the share that it reads as the label; "spread" is the standard
deviation over the 100 pictures of a label, in [-1, 1], averaged over pixels and labels.
The first row is for real digits.
"""

import importlib
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from common import load_mnist, training_digits  # noqa: E402

import keras  # noqa: E402
import tensorflow as tf  # noqa: E402
from keras import layers  # noqa: E402

stage2 = importlib.import_module("02_cgan_mnist")
EACH = 100


def train_classifier(digits, labels):
    """Returns a classifier trained on all but the last 5,000 digits, and its accuracy on those."""
    keras.utils.set_random_seed(0)
    classifier = keras.Sequential(
        [
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dropout(0.5),
            layers.Dense(10),
        ]
    )
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    classifier.compile("adam", loss, metrics=["accuracy"], jit_compile=False)
    flags = {"batch_size": 128, "seed": 0, "first_step": 0}
    classifier.fit(
        training_digits(digits[:55000], labels[:55000], last_step=1290, **flags),
        verbose=0,
        shuffle=False,
    )
    held_out = training_digits(digits[55000:], labels[55000:], last_step=39, **flags)
    return classifier, classifier.evaluate(held_out, verbose=0, return_dict=True)["accuracy"]


def judge(classifier, pictures):
    """Returns the share read as asked and the spread; pictures: (10, EACH, 28, 28, 1)."""
    logits = classifier(tf.reshape(pictures, (-1, 28, 28, 1)), training=False)
    asked = tf.repeat(tf.range(10, dtype=tf.int64), EACH)
    share = tf.reduce_mean(tf.cast(tf.argmax(logits, axis=-1) == asked, tf.float32))
    return float(share), float(tf.reduce_mean(tf.math.reduce_std(pictures, axis=1)))


def main():
    digits, labels = load_mnist()
    classifier, accuracy = train_classifier(digits, labels)
    print(f"classifier: {accuracy:.2%} of 5,000 digits held out")
    print(f"{'digits':30}{'as asked':>10}{'spread':>8}")
    real = [tf.boolean_mask(digits, labels == digit)[-EACH:] for digit in range(10)]
    rows = {"real": tf.cast(tf.stack(real), tf.float32) / 127.5 - 1.0}
    for run in sys.argv[1:]:
        generator = stage2.ConditionalGAN().generator
        generator.load_weights(Path(run) / "generator.weights.h5")
        noise = tf.random.stateless_normal((10 * EACH, stage2.LATENT), seed=(7, 7))
        drawn = generator(noise, tf.one_hot(tf.repeat(tf.range(10), EACH), 10), training=False)
        rows[run] = tf.reshape(drawn, (10, EACH, 28, 28, 1))
    for name, pictures in rows.items():
        share, spread = judge(classifier, pictures)
        print(f"{name:30}{share:10.1%}{spread:8.3f}")


if __name__ == "__main__":
    main()
