"""Stage 5: train and test Pix2Pix. You draw the sketch, it colours it.

A U-Net turns a sketch into a picture; a PatchGAN is shown the sketch with either the
real picture or the generated one and learns to tell; the U-Net learns to be close to
the real picture (L1) and to pass for real (cGAN) at once. Isola et al. 2017,
"Image-to-Image Translation with Conditional Adversarial Networks", sections 3 and 6.2.

    python 05_pix2pix_train.py --epochs 10
    python 05_pix2pix_train.py --dataset my/folder --direction BtoA --out runs/mine

Writes under runs/05_pix2pix: result.png (sketch | generated | real, pairs never
trained on), losses.csv, losses.png, metrics.csv, samples/ after each epoch, the
weights, and 1.4 GB of checkpoints (2.1 GB while one is written). Run again, it goes on
where it stopped. Ten epochs of the 200 pairs take 20 to 35 minutes on 2 cores.
"""

import functools

from common import (
    AUGMENTATIONS,
    IMAGE_SIZE,
    AdversarialModel,
    PatchGAN,
    UNet,
    adam,
    contents_of,
    decode_pair,
    discriminator_losses,
    epoch_steps,
    find_pairs,
    fit,
    generate,
    generator_loss,
    number,
    pair_arguments,
    read_rows,
    refuse_unreadable,
    run_main,
    save_grid,
    set_devices,
    split_stack,
    stack_pair,
    start_run,
    trainer_arguments,
    training_pairs,
    unreadable,
    usual_direction,
    warn_of_shared,
)

import keras
import tensorflow as tf

# Of both networks (section 3.3). The section also halves the discriminator's loss, to slow it
# down, but to Adam the size of a loss is nothing: half the loss makes the same steps.
LEARNING_RATE, BETA_1 = 2e-4, 0.5
LAMBDA_L1 = 100.0
RESULT_ROWS = 6
SAMPLE_ROWS = 4


class Pix2Pix(AdversarialModel):
    """The U-Net and the PatchGAN, and the game between them.

    Args:
        loss: "l1+cgan" (the paper's), or "cgan" or "l1" alone.
        lambda_l1: the weight of L1 beside the adversarial loss, which has 1.
    """

    def __init__(self, loss="l1+cgan", lambda_l1=LAMBDA_L1, **kwargs):
        super().__init__(**kwargs)
        self.terms = loss.split("+")
        self.lambda_l1 = lambda_l1
        self.generator = UNet(name="generator")
        self.discriminator = PatchGAN(name="discriminator")
        self.scores = [keras.metrics.Mean(name) for name in ("l1", "psnr", "ssim")]
        picture = tf.zeros((1, IMAGE_SIZE, IMAGE_SIZE, 3))
        self.generator(picture, training=False)  # the first call makes the weights
        self.discriminator(picture, picture, training=False)
        self.built = True

    def train_step(self, pair):
        sketch, real = pair  # (B, 256, 256, 3) each
        losses = {}
        with tf.GradientTape() as g_tape, tf.GradientTape() as d_tape:
            fake = self.generator(sketch, training=True)
            g_loss = 0.0
            losses["g_l1"] = tf.reduce_mean(tf.abs(real - fake))
            if "l1" in self.terms:
                g_loss += self.lambda_l1 * losses["g_l1"]
            if "cgan" in self.terms:
                real_logits = self.discriminator(sketch, real, training=True)  # (B, 30, 30, 1)
                fake_logits = self.discriminator(sketch, fake, training=True)
                losses["g_adversarial"] = generator_loss(fake_logits)
                losses["d_real"], losses["d_fake"] = discriminator_losses(real_logits, fake_logits)
                g_loss += losses["g_adversarial"]
                d_loss = self.discriminator_optimizer.scale_loss(losses["d_real"] + losses["d_fake"])
            g_loss = self.generator_optimizer.scale_loss(g_loss)

        # Generator: minimise lambda |x - G(s)| - log D(s, G(s)).
        variables = self.generator.trainable_variables
        self.generator_optimizer.apply(g_tape.gradient(g_loss, variables), variables)
        # Discriminator: minimise -log D(s, x) - log(1 - D(s, G(s))).
        if "cgan" in self.terms:
            variables = self.discriminator.trainable_variables
            self.discriminator_optimizer.apply(d_tape.gradient(d_loss, variables), variables)
        return losses

    def test_step(self, pair):
        sketch, real = pair
        fake = generate(self.generator, sketch)
        l1, psnr, ssim = self.scores
        l1.update_state(tf.abs(real - fake))
        psnr.update_state(tf.image.psnr(real, fake, max_val=2.0))  # from -1 to 1
        ssim.update_state(tf.image.ssim(real, fake, max_val=2.0))
        return {score.name: score.result() for score in self.scores}


def validation_pairs(paths, direction):
    """Returns a dataset of (condition, target), each (1, 256, 256, 3): one pair at a time."""
    files = tf.data.Dataset.from_tensor_slices(paths)
    stacks = files.map(lambda path: stack_pair(*decode_pair(path), direction))
    return stacks.map(split_stack).batch(1).prefetch(tf.data.AUTOTUNE)


def main():
    parser = trainer_arguments(__doc__, epochs=10, batch_size=1, out="05_pix2pix")
    pair_arguments(parser)
    add = parser.add_argument
    add("--loss", choices=["l1+cgan", "cgan", "l1"], default="l1+cgan", help="(l1+cgan)")
    add("--lambda-l1", type=number(0, 1e6), default=LAMBDA_L1, help=f"of L1 in l1+cgan ({LAMBDA_L1:g})")
    add("--augment", choices=list(AUGMENTATIONS), default="jitter", help="(jitter, the paper's)")
    args = parser.parse_args()
    set_devices(args)

    args.direction = args.direction or usual_direction(args.dataset)
    pairs = find_pairs(args.dataset)
    steps = epoch_steps(args, len(pairs["train"]))
    files = pairs["train"] + pairs["val"]
    refuse_unreadable(f"--dataset {args.dataset}", unreadable(files))
    contents = contents_of(files)
    warn_of_shared(pairs, contents)
    run = start_run(args, {name: len(paths) for name, paths in pairs.items()}, contents)

    batches = functools.partial(
        training_pairs,
        pairs["train"],
        batch_size=args.batch_size,
        seed=args.seed,
        direction=args.direction,
        augment=args.augment,
    )

    def draw(path, count=SAMPLE_ROWS):
        every = max(1, len(pairs["val"]) // count)  # the same pairs each time, spread evenly
        chosen = validation_pairs(pairs["val"][::every][:count], args.direction)
        rows = [[s[0], generate(model.generator, s)[0], r[0]] for s, r in chosen]
        save_grid(path, rows, titles=["sketch", "generated", "real"])

    model = Pix2Pix(args.loss, args.lambda_l1)
    model.compile(adam(LEARNING_RATE, BETA_1), adam(LEARNING_RATE, BETA_1))
    fit(
        model,
        run,
        batches,
        args,
        steps_per_epoch=steps,
        draw=draw,
        validation_data=validation_pairs(pairs["val"], args.direction),
    )
    draw(run / "result.png", RESULT_ROWS)
    for last in read_rows(run / "metrics.csv")[-1:]:
        print(
            f"Validation after epoch {last['epoch']:.0f}: L1 {last['val_l1']:.4f}, "
            f"PSNR {last['val_psnr']:.2f} dB, SSIM {last['val_ssim']:.4f}"
        )
    print(
        f"{run / 'result.png'}  sketch | generated | real, pairs never trained on\n"
        f"{run / 'losses.png'}  from losses.csv and metrics.csv\n"
        f"{run / 'samples'}  some of the same pairs after each epoch\n"
        f"{run / 'generator.weights.h5'}"
    )


if __name__ == "__main__":
    run_main(main)
