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

import common
from common import AdversarialModel, PatchGAN, UNet, discriminator_losses, generate, generator_loss, minimise

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
        picture = tf.zeros((1, common.IMAGE_SIZE, common.IMAGE_SIZE, 3))
        self.generator(picture, training=False)  # the first call makes the weights
        self.discriminator(picture, picture, training=False)
        self.built = True

    def train_step(self, pair):
        condition, real = pair  # (B, 256, 256, 3) each
        losses = {}
        with tf.GradientTape() as g_tape, tf.GradientTape() as d_tape:
            fake = self.generator(condition, training=True)
            g_loss = 0.0
            losses["g_l1"] = tf.reduce_mean(tf.abs(real - fake))
            if "l1" in self.terms:
                g_loss += self.lambda_l1 * losses["g_l1"]
            if "cgan" in self.terms:
                real_logits = self.discriminator(condition, real, training=True)  # (B, 30, 30, 1)
                fake_logits = self.discriminator(condition, fake, training=True)
                losses["g_adversarial"] = generator_loss(fake_logits)
                losses["d_real"], losses["d_fake"] = discriminator_losses(real_logits, fake_logits)
                g_loss += losses["g_adversarial"]
                d_loss = losses["d_real"] + losses["d_fake"]

        # Generator: minimise lambda |x - G(c)| - log D(c, G(c)).
        minimise(g_loss, g_tape, self.generator, self.generator_optimizer)
        # Discriminator: minimise -log D(c, x) - log(1 - D(c, G(c))).
        if "cgan" in self.terms:
            minimise(d_loss, d_tape, self.discriminator, self.discriminator_optimizer)
        return losses

    def test_step(self, pair):
        condition, real = pair  # (1, 256, 256, 3) each
        fake = generate(self.generator, condition)
        return {
            "l1": tf.reduce_mean(tf.abs(real - fake)),
            "psnr": tf.reduce_mean(tf.image.psnr(real, fake, max_val=2.0)),  # from -1 to 1
            "ssim": tf.reduce_mean(tf.image.ssim(real, fake, max_val=2.0)),
        }


def validation_pairs(paths, direction):
    """Returns a dataset of (condition, target), each (1, 256, 256, 3): one pair at a time."""
    files = tf.data.Dataset.from_tensor_slices(paths)
    stacks = files.map(lambda path: common.stack_pair(*common.decode_pair(path), direction))
    pairs = stacks.map(lambda stack: common.split_stack(common.resize(stack)))
    return pairs.batch(1).prefetch(tf.data.AUTOTUNE)


def main():
    parser = common.trainer_arguments(__doc__, epochs=10, batch_size=1, out="05_pix2pix")
    common.pair_arguments(parser)
    add = parser.add_argument
    add("--loss", choices=["l1+cgan", "cgan", "l1"], default="l1+cgan", help="(l1+cgan)")
    add(
        "--lambda-l1", type=common.number(0, 1e6), default=LAMBDA_L1, help=f"of L1 in l1+cgan ({LAMBDA_L1:g})"
    )
    add("--augment", choices=list(common.AUGMENTATIONS), default="jitter", help="(jitter, the paper's)")
    args = parser.parse_args()
    common.set_devices(args)

    args.direction = args.direction or common.usual_direction(args.dataset)
    pairs = common.find_pairs(args.dataset)
    steps = common.epoch_steps(args, len(pairs["train"]))
    files = pairs["train"] + pairs["val"]
    common.refuse_unreadable(f"--dataset {args.dataset}", common.find_unreadable(files))
    hashes = common.file_hashes(files)
    common.warn_of_shared(pairs, hashes)
    run = common.start_run(args, {name: len(paths) for name, paths in pairs.items()}, hashes)

    # The game: U-Net and PatchGAN, an optimiser each, batches of augmented pairs.
    model = Pix2Pix(args.loss, args.lambda_l1)
    model.set_optimizers(*(common.adam(LEARNING_RATE, BETA_1) for _ in range(2)))
    batches = functools.partial(
        common.training_pairs,
        pairs["train"],
        batch_size=args.batch_size,
        seed=args.seed,
        direction=args.direction,
        augment=args.augment,
    )
    validation = validation_pairs(pairs["val"], args.direction)

    def draw(path, count=SAMPLE_ROWS):
        every = max(1, len(pairs["val"]) // count)  # the same pairs each time, spread evenly
        chosen = validation_pairs(pairs["val"][::every][:count], args.direction)
        rows = [[c[0], generate(model.generator, c)[0], r[0]] for c, r in chosen]
        common.save_grid(path, rows, titles=["sketch", "generated", "real"])

    metrics = common.train(model, run, batches, args, steps_per_epoch=steps, draw=draw, validation=validation)
    draw(run / "result.png", RESULT_ROWS)
    last = metrics[-1]
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
    common.run_main(main)
