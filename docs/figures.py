"""Draws the course's figures 1 to 10, in English and in Korean.

    python docs/figures.py
    python docs/figures.py --only maxout --language ko
    python docs/figures.py --run runs/05_pix2pix --losses runs/l1 runs/05_pix2pix
    python docs/figures.py --only architectures --architectures runs/ed_l1 runs/ed runs/l1 runs/05
    python docs/figures.py --drawings runs/long      # drawings.png, more_drawings.png: coloured

Writes docs/course/NAME.png and docs/course/ko/NAME.png, 1400 pixels wide, to be shown at 700.
What a figure shows of the data or of a network is computed by the scripts themselves. The digits
are those of ten epochs of stages 1 and 2; without --run, a Pix2Pix of 16 filters is trained for
a minute. All of it takes 5 to 10 minutes on 2 cores.

The Korean words need the free font NanumGothic. Debian and Ubuntu: apt install fonts-nanum;
elsewhere: Nanum Gothic at fonts.google.com. Without it: --language en.
"""

import functools
import importlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import common  # noqa: E402
from common import decode_pair, generate, jitter, read_stack, resize, split_stack  # noqa: E402

import keras  # noqa: E402
import matplotlib  # noqa: E402
import tensorflow as tf  # noqa: E402
from matplotlib import colors, font_manager  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from matplotlib.patches import FancyBboxPatch, Polygon, Rectangle  # noqa: E402
from PIL import Image, ImageDraw  # noqa: E402

WIDTH, DPI = 7.0, 200  # inches, pixels an inch
FONT = "NanumGothic"
FONT_FILES = {FONT, f"{FONT}Bold", f"{FONT}-Regular", f"{FONT}-Bold"}  # Debian's, Google's
TRAINED = "1f44d"  # the training pair that is augmented: a thumb
SHOWN = "1f614"  # the validation pair that figures show, where the dataset has it: a sad face
DIGIT, WRONG_DIGIT = 7, 2  # of the cGAN's figure
DIGIT_STEPS, PIX2PIX_STEPS, PIX2PIX_FILTERS = 4680, 600, 16  # of the networks trained here
# Okabe and Ito's colours, which the colour-blind can tell apart.
BLUE, SKY, GREEN, ORANGE, YELLOW = "#0072B2", "#56B4E9", "#009E73", "#D55E00", "#E69F00"
PURPLE, GRAY, BLACK = "#CC79A7", "#767676", "#222222"
GENERATOR, DISCRIMINATOR = BLUE, ORANGE
LOGITS = {"cmap": "RdBu", "vmin": -4, "vmax": 4}  # red: fake, blue: real

# fmt: off
WORDS = {  # name: (English, Korean)
    "noise": ("noise z\n100 numbers", "잡음 z\n값 100개"),
    "generator": ("Generator\nG", "생성자\nG"),
    "discriminator": ("Discrimi-\nnator\nD", "판별자\nD"),
    "real_digits": ("real x", "실제 이미지 x"),
    "fake_digits": ("generated G(z)", "생성된 이미지 G(z)"),
    "fake_digits_of": ("generated G(z|y)", "생성된 이미지 G(z|y)"),
    "d_loss": ("discriminator's loss", "판별자의 손실"),
    "g_loss": ("generator's loss", "생성자의 손실"),
    "forward": ("computed forward", "순방향 계산"),
    "d_gradient": ("gradient of the discriminator's loss: it changes D only",
                   "판별자 손실의 기울기: D만 바꿔요"),
    "g_gradient": ("gradient of the generator's loss: it passes back through D and changes G only",
                   "생성자 손실의 기울기: D를 거꾸로 지나지만 G만 바꿔요"),
    "label": ("label y, one-hot:", "레이블 y, 원-핫:"),
    "wrong_label": ("real x under a wrong label y′:", "실제 이미지 x에 틀린 레이블 y′:"),
    "minimax": ("log(1 − D): the minimax game", "log(1 − D): 미니맥스 게임의 손실"),
    "non_saturating": ("−log D: what the code uses", "−log D: 실제로 쓰는 손실"),
    "loss_title": ("the generator's loss", "생성자의 손실"),
    "slope_title": ("its slope", "손실의 기울기"),
    "logit": ("logit of a generated picture (second row: D)", "생성된 이미지의 로짓(아랫줄은 D)"),
    "sure": ("D is sure:\nfake", "D가 가짜라고\n확신하는 곳"),
    "no_slope": ("almost flat:\nG learns little", "기울기가 거의 0:\nG가 거의 못 배워요"),
    "full_slope": ("full slope", "기울기가 커요"),
    "maxout_title": ("one input, one unit, four pieces", "입력 하나, 유닛 하나, 조각 넷"),
    "piece": ("four linear pieces", "선형 조각 넷"),
    "maximum": ("the largest: Maxout", "가장 큰 값: Maxout"),
    "input": ("input x", "입력 x"),
    "output": ("output", "출력"),
    "inputs": ("inputs", "입력"),
    "pieces": ("3 × 4 linear maps", "선형 함수 3 × 4개"),
    "largest": ("the largest\nof each row", "행마다\n가장 큰 값"),
    "file": ("1  the file", "1  파일"),
    "halves": ("2  split at the middle", "2  가운데에서 나누기"),
    "stack": ("3  one stack of 6 channels, −1 to 1", "3  채널 6개로 쌓기, −1~1"),
    "enlarged": ("4  resized", "4  크기 바꾸기"),
    "cropped": ("5  cropped\nat random", "5  무작위로\n자르기"),
    "mirrored": ("6  mirrored,\nhalf of the time", "6  절반의 확률로\n좌우 뒤집기"),
    "split": ("7  split again", "7  다시 나누기"),
    "condition": ("condition", "조건"),
    "target": ("real picture", "정답 이미지"),
    "encoder_decoder": ("Encoder-Decoder: everything passes through 512 numbers",
                        "Encoder-Decoder: 모든 정보가 숫자 512개를 지나가요"),
    "unet": ("U-Net: skips append the encoder's channels",
             "U-Net: 스킵 연결이 인코더의 채널을 이어 붙여요"),
    "patchgan": ("PatchGAN: both pictures in, 30 × 30 logits out",
                 "PatchGAN: 이미지 두 장이 들어가고 로짓 30 × 30개가 나와요"),
    "bottleneck": ("bottleneck", "병목"),
    "sketch": ("sketch", "스케치"),
    "picture": ("picture", "이미지"),
    "concatenation": ("concate-\nnation", "이어\n붙이기"),
    "logits": ("30 × 30 logits", "로짓 30 × 30개"),
    "one_judge": ("One judge for the whole picture (DCGAN)", "이미지 전체를 한 번에 (DCGAN)"),
    "one_number": ("one logit:\nreal or fake?", "로짓 하나:\n진짜? 가짜?"),
    "many_judges": ("PatchGAN: one logit for each 70 × 70 pixels",
                    "PatchGAN: 70 × 70픽셀마다 로짓 하나"),
    "real": ("real", "정답"),
    "generated": ("generated", "생성"),
    "fake_or_real": ("fake < 0 < real", "가짜 < 0 < 진짜"),
    "why": ("Why patches are enough: how alike two pixels of a real picture are",
            "왜 패치로 충분할까요: 정답 이미지의 두 픽셀은 얼마나 닮았나요"),
    "distance": ("distance of the two pixels", "두 픽셀의 거리(픽셀)"),
    "correlation": ("correlation", "상관 계수"),
    "as_is": ("pictures as they are", "이미지 그대로"),
    "less_mean": ("less the mean picture", "평균 이미지를 뺀 것"),
    "patch": ("70: a patch", "70: 패치의 크기"),
    "c": ("sketch c", "스케치 c"),
    "x": ("real picture x", "정답 이미지 x"),
    "fake": ("generated G(c)", "생성된 이미지 G(c)"),
    "both_see": ("the sketch goes with both pictures", "두 이미지 모두 스케치와 짝지어 봐요"),
    "g_tape": ("g_tape: back through the PatchGAN; changes the U-Net only",
               "g_tape: PatchGAN을 거꾸로 지나 U-Net만 바꿔요"),
    "d_tape": ("d_tape: changes the PatchGAN only", "d_tape: PatchGAN만 바꿔요"),
    "one_sketch": ("one sketch", "스케치 하나"),
    "three_answers": ("three pictures, all of them right", "모두 정답인 이미지 셋"),
    "median": ("median", "중앙값"),
    "always": ("mean L1 if the answer is always ...", "늘 이 색으로 답할 때 L1의 평균"),
    "safest": ("L1's choice", "L1의 선택"),
    "same_sketch": ("What the losses made of a sketch not seen in training",
                    "학습 때 보지 못한 스케치를 손실마다 채색한 결과"),
    "unit": ("unit", "유닛"),
    "logits_of": ("30 × 30 logits\nfor ", "로짓 30 × 30개\n"),
    "mean": ("30 × 30, mean", "30 × 30, 평균"),
    "scale_note": ("to scale; gray: height and width of a map, black: its channels",
                   "실제 비율, 회색 숫자: 높이와 너비, 검은 숫자: 채널"),
    "no_skips": ("Encoder-Decoder", "스킵 연결 없음\nEncoder-Decoder"),
    "skips": ("U-Net", "스킵 연결 있음\nU-Net"),
    "judge": ("Discriminator", "판별자"),
}
# fmt: on


def word(language, name):
    """Returns a word of the table in one language, "en" or "ko"."""
    return WORDS[name][language == "ko"]


def tint(colour, share=0.2):
    """Returns a light shade: `share` of the colour, the rest white."""
    return [1.0 - share * (1.0 - value) for value in colors.to_rgb(colour)]


class Sheet:
    """A white page; places on it are in inches from the lower left corner."""

    def __init__(self, height):
        self.figure = Figure((WIDTH, height), facecolor="white")
        self.axis = self.figure.add_axes((0, 0, 1, 1), xlim=(0, WIDTH), ylim=(0, height))
        self.axis.axis("off")
        self.height = height

    def text(self, x, y, text, size=8.5, **style):
        style = {"ha": "center", "va": "center", "color": BLACK} | style
        self.axis.text(x, y, text, fontsize=size, **style)

    def box(self, place, text, colour, size=9.5):
        x, y, width, height = place
        shape = FancyBboxPatch(
            (x, y), width, height, "round,pad=0,rounding_size=0.06", facecolor=tint(colour),
            edgecolor=colour, linewidth=1.5, zorder=2,
        )  # fmt: skip
        self.axis.add_patch(shape)
        self.text(x + width / 2, y + height / 2, text, size, zorder=4)

    def block(self, x, y, width, height, colour, **style):
        style = {"facecolor": colour, "edgecolor": colour, "linewidth": 0.6} | style
        self.axis.add_patch(Rectangle((x, y), width, height, **style))

    def frame(self, place, colour=GRAY, line=0.8, zorder=4):
        x, y, width, height = place
        shape = Rectangle((x, y), width, height, linewidth=line, zorder=zorder)
        shape.set(facecolor="none", edgecolor=colour)
        self.axis.add_patch(shape)

    def arrow(self, *points, colour=BLACK, dashed=False, width=1.2):
        """Draws a line through points (x, y); its head is at the last one."""
        (x0, y0), (x1, y1) = points[-2:]
        length = ((x1 - x0) ** 2 + (y1 - y0) ** 2) ** 0.5
        dx, dy = (x1 - x0) / length, (y1 - y0) / length
        back = x1 - 0.1 * dx, y1 - 0.1 * dy
        style = {"linestyle": (0, (3, 2)) if dashed else "-", "zorder": 3, "linewidth": width}
        self.axis.plot(*zip(*points[:-1], back), color=colour, **style)
        sides = [(back[0] + s * dy, back[1] - s * dx) for s in (0.045, -0.045)]
        self.axis.add_patch(Polygon([*sides, (x1, y1)], color=colour, linewidth=0, zorder=3))

    def picture(self, x, y, width, picture, *, frame=GRAY, height=None, zorder=1, **style):
        """Draws (height, width, 3 or 1) in [-1, 1] or, if `cmap` is given, any numbers."""
        height = height or width
        if "cmap" not in style:
            picture = tf.clip_by_value(picture * 0.5 + 0.5, 0.0, 1.0)
            style |= {"cmap": "gray", "vmin": 0, "vmax": 1}
        extent = (x, x + width, y, y + height)
        image = self.axis.imshow(picture, extent=extent, aspect="auto", zorder=zorder, **style)
        self.axis.set(xlim=(0, WIDTH), ylim=(0, self.height))
        self.frame((x, y, width, height), frame, zorder=zorder)
        return image

    def axes(self, x, y, width, height, *, title="", x_name="", y_name="", **limits):
        """Returns axes for curves; the place is in inches."""
        place = (x / WIDTH, y / self.height, width / WIDTH, height / self.height)
        axis = self.figure.add_axes(place, **limits)
        axis.set_title(title, fontsize=9.5)
        axis.set_xlabel(x_name, fontsize=8.5)
        axis.set_ylabel(y_name, fontsize=8.5)
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
        return axis

    def legend(self, x, y, lines):
        """Draws a legend, a line for each (text, style of its arrow)."""
        for row, (text, style) in enumerate(lines):
            middle = y - 0.2 * row
            self.arrow((x, middle), (x + 0.5, middle), **style)
            self.text(x + 0.6, middle, text, ha="left")


# === What the figures show, computed ========================================


def shown_pair(dataset, split="val", name=SHOWN):
    """Returns the file of the pair to show, or the middle file if the dataset does not have it."""
    paths = common.find_pairs(dataset)[split]
    return next((path for path in paths if Path(path).stem == name), paths[len(paths) // 2])


def read_pair(dataset):
    """Returns condition and target of the pair that is shown, (1, 256, 256, 3) each."""
    direction = common.describe_dataset(dataset)["direction"]
    return next(iter(common.validation_pairs([shown_pair(dataset)], direction)))


def play(model, batches, steps, learning_rate):
    """Trains a model by its own `train_step`."""
    model.generator_optimizer = common.adam(model.generator, learning_rate, 0.5)
    model.discriminator_optimizer = common.adam(model.discriminator, learning_rate, 0.5)
    take_step = common.make_train_function(model, batches)
    for _ in range(steps):
        take_step()


@functools.cache
def drawn_digits(conditional):
    """Trains stage 1's or stage 2's networks; returns real digits, generated digits and noise.

    The nine digits of a kind are one picture; the noise is that of the generated ones, (9, 100).
    """
    keras.utils.set_random_seed(0)
    digits, labels = common.load_mnist()
    game = {"batch_size": 128, "seed": 0, "first_step": 0, "last_step": DIGIT_STEPS}
    batches = common.training_digits(digits, labels, **game)
    stage1, stage2 = map(importlib.import_module, ("01_gan_mnist", "02_cgan_mnist"))
    model = stage2.ConditionalGAN() if conditional else stage1.GAN()
    play(model, batches, DIGIT_STEPS, 5e-4 if conditional else 2e-4)
    noise = tf.random.stateless_normal((9, 100), seed=(0, 0))
    label = [tf.one_hot([DIGIT] * 9, 10)] if conditional else []
    asked = tf.boolean_mask(digits, labels == DIGIT) if conditional else digits
    real = tf.cast(asked[:9], tf.float32) / 127.5 - 1.0
    return tile(real), tile(model.generator(noise, *label, training=False)), noise


def tile(pictures):
    """Puts (9, height, width, 1) into one picture, 3 x 3."""
    rows = [tf.concat(tf.unstack(pictures[n : n + 3]), axis=1) for n in (0, 3, 6)]
    return tf.concat(rows, axis=0)


@functools.cache
def trained(dataset, run):
    """Returns the Pix2Pix of a run of stage 5; without one, a small one trained here."""
    stage5 = importlib.import_module("05_pix2pix_train")
    if run:
        flags = common.read_options(run)["flags"]
        names = {name: flags[f"--{name}"] for name in ("filters", "norm", "generator")}
        model = stage5.Pix2Pix(**names)
        loaded = stage5.load_networks(model, run, SimpleNamespace(out=Path(), **names))
        if "discriminator" not in loaded:
            raise common.UserError(f"--run {run}: no trained discriminator in it; give another run")
        return model
    keras.utils.set_random_seed(0)
    model = stage5.Pix2Pix(filters=PIX2PIX_FILTERS)
    how = {"batch_size": 1, "seed": 0, "augment": "jitter", "first_step": 0}
    direction = common.describe_dataset(dataset)["direction"]
    how |= {"last_step": PIX2PIX_STEPS, "direction": direction}
    batches = common.training_pairs(common.find_pairs(dataset)["train"], **how)
    play(model, batches, PIX2PIX_STEPS, 2e-4)
    return model


@functools.cache
def judged(dataset, run):
    """Returns condition, real and generated picture, and the logits (30, 30) of the latter two."""
    model, (condition, real) = trained(dataset, run), read_pair(dataset)
    fake = generate(model.generator, condition)
    logits = [model.discriminator(condition, p, training=True)[0, ..., 0] for p in (real, fake)]
    return condition[0], real[0], fake[0], *logits


@functools.cache
def correlations(dataset):
    """Measures how the correlation of two pixels of the training targets falls with distance.

    Returns:
        Distances in pixels; the correlation at each, over rows and columns together; the same
        after subtracting the mean picture.
    """
    direction = common.describe_dataset(dataset)["direction"]
    paths = common.spread(common.find_pairs(dataset)["train"], 300)
    pairs = common.validation_pairs(paths, direction)
    gray = tf.concat([tf.reduce_mean(target, axis=-1) for _, target in pairs], axis=0)
    distances = [*range(0, 20, 2), *range(20, 181, 8)]

    def correlation(values, distance):
        rows = tf.stack([values[:, : 256 - distance], values[:, distance:]])
        columns = tf.stack([values[..., : 256 - distance], values[..., distance:]])
        a, b = tf.concat([tf.reshape(rows, (2, -1)), tf.reshape(columns, (2, -1))], axis=1)
        a, b = a - tf.reduce_mean(a), b - tf.reduce_mean(b)
        spread = tf.sqrt(tf.reduce_mean(a**2) * tf.reduce_mean(b**2))
        return float(tf.reduce_mean(a * b) / spread)

    kinds = gray, gray - tf.reduce_mean(gray, axis=0)
    return distances, *([correlation(values, d) for d in distances] for values in kinds)


# === The figures ============================================================


def one_hot(sheet, x, y, digit, colour):
    """Draws a label's ten numbers."""
    for place in range(10):
        on = place == digit
        sheet.block(x + 0.15 * place, y, 0.15, 0.17, None, facecolor=tint(colour, 0.9 * on),
                    edgecolor=GRAY)  # fmt: skip
        style = {"color": BLACK if on else GRAY, "weight": "bold" if on else "normal"}
        sheet.text(x + 0.15 * place + 0.075, y + 0.08, int(on), 8, zorder=4, **style)


def draw_gan(say, args, conditional=False):
    """Noise, generator, digits, discriminator, losses, gradients; and labels, if conditional."""
    up = 0.55 if conditional else 0.0
    sheet = Sheet(4.4 if conditional else 3.2)
    real, fake, noise = drawn_digits(conditional)
    sheet.picture(0.2, 1.15 + up, 0.7, tf.reshape(noise[0], (10, 10, 1)), interpolation="nearest")
    sheet.text(0.55, 0.93 + up, say("noise"), va="center")
    sheet.box((1.25, 1.15 + up, 0.95, 0.7), say("generator"), GENERATOR)
    sheet.picture(2.65, 1.05 + up, 0.9, fake)
    sheet.text(3.1, 0.93 + up, say("fake_digits_of" if conditional else "fake_digits"))
    sheet.picture(2.65, 2.05 + up, 0.9, real)
    sheet.text(3.1, 3.05 + up, say("real_digits"))
    sheet.box((4.0, 1.05 + up, 0.9, 1.9), say("discriminator"), DISCRIMINATOR)
    of, given = ("|y", "|y") if conditional else ("", "")
    lines = [say("d_loss"), rf"$-\log D(x{given})$", rf"$-\log(1-D(G(z{of}){given}))$"]
    lines += [r"$-\log(1-D(x|y'))$"] if conditional else []
    sheet.box((5.3, 2.0 + up, 1.6, 0.95), "\n".join(lines), DISCRIMINATOR, 8)
    lines = [say("g_loss"), rf"$-\log D(G(z{of}){given})$"]
    sheet.box((5.3, 1.05 + up, 1.6, 0.65), "\n".join(lines), GENERATOR, 8)

    for x0, x1 in ((0.9, 1.25), (2.2, 2.65), (3.55, 4.0), (4.9, 5.3)):
        sheet.arrow((x0, 1.58 + up), (x1, 1.58 + up))
        if x0 > 1.0:
            back = (x1, 1.34 + up), (x0, 1.34 + up)
            sheet.arrow(*back, colour=GENERATOR, dashed=True)
    for x0, x1 in ((3.55, 4.0), (4.9, 5.3)):
        sheet.arrow((x0, 2.6 + up), (x1, 2.6 + up))
    sheet.arrow((5.3, 2.3 + up), (4.9, 2.3 + up), colour=DISCRIMINATOR, dashed=True)
    if conditional:
        sheet.text(1.5, 0.9, say("label"), ha="right")
        one_hot(sheet, 1.6, 0.82, DIGIT, PURPLE)
        sheet.arrow((1.73, 0.99), (1.73, 1.7), colour=PURPLE)
        sheet.arrow((3.1, 0.9), (4.45, 0.9), (4.45, 1.6), colour=PURPLE)
        sheet.text(4.8, 4.15, say("wrong_label"), ha="right")
        one_hot(sheet, 4.9, 4.06, WRONG_DIGIT, YELLOW)
        sheet.arrow((5.65, 4.06), (5.65, 3.8), (4.45, 3.8), (4.45, 3.5), colour=YELLOW)
    lines = [(say("forward"), {})]
    lines += [(say("d_gradient"), {"colour": DISCRIMINATOR, "dashed": True})]
    lines += [(say("g_gradient"), {"colour": GENERATOR, "dashed": True})]
    sheet.legend(0.2, 0.57, lines)
    return sheet


def draw_log_losses(say, args):
    """log(1 - D) and -log D over the logit, and their slopes."""
    sheet, logits = Sheet(3.1), tf.linspace(-6.0, 6.0, 241)
    places = zip((0.5, 3.95), ("loss_title", "slope_title"))
    style = {"x_name": say("logit"), "xlim": (-6, 6)}
    axes = [sheet.axes(x, 0.85, 2.85, 1.9, title=say(name), **style) for x, name in places]
    for name, colour, line in (("minimax", ORANGE, "--"), ("non_saturating", BLUE, "-")):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            real, sign = (1.0, 1.0) if name == "non_saturating" else (0.0, -1.0)
            answers = tf.fill(logits.shape, real)
            loss = sign * tf.nn.sigmoid_cross_entropy_with_logits(answers, logits)
        style = {"color": colour, "linestyle": line, "linewidth": 2, "label": say(name)}
        axes[0].plot(logits, loss, **style)
        axes[1].plot(logits, tape.gradient(loss, logits), **style)
    ticks = [-6, -4, -2, 0, 2, 4, 6]
    names = [f"{tick}\n{tf.sigmoid(float(tick)):.3f}".replace("-", "−") for tick in ticks]
    for axis in axes:
        axis.axvspan(-6, -3, color=GRAY, alpha=0.15, linewidth=0)
        axis.set_xticks(ticks, names)
    axes[0].text(-4.5, -5.3, say("sure"), fontsize=8.5, ha="center")
    axes[1].text(-5.8, -0.31, say("no_slope"), fontsize=8.5, color=ORANGE)
    axes[1].text(-5.8, -0.9, say("full_slope"), fontsize=8.5, color=BLUE)
    sheet.figure.legend(*axes[0].get_legend_handles_labels(), loc="lower center", ncols=2,
                        fontsize=8.5, frameon=False)  # fmt: skip
    return sheet


def draw_maxout(say, args):
    """Four linear pieces and their maximum for one input; and units x pieces as a drawing."""
    sheet = Sheet(3.2)
    x = tf.linspace(-3.0, 3.0, 121)[:, tf.newaxis]
    layer = importlib.import_module("02_cgan_mnist").Maxout(1, 4)
    layer(x, training=False)  # makes the weights
    layer.maps.kernel.assign([[-1.6, -0.35, 0.5, 1.9]])
    layer.maps.bias.assign([-1.4, 0.5, 0.25, -2.2])
    names = {"title": say("maxout_title"), "x_name": say("input"), "y_name": say("output")}
    axis = sheet.axes(0.55, 0.5, 2.8, 2.3, **names, xlim=(-3, 3), ylim=(-2.5, 4.8))
    for piece, line in zip(tf.unstack(layer.maps(x), axis=1), ("-", "--", "-.", ":")):
        axis.plot(x, piece, color=GRAY, linewidth=1.2, linestyle=line, label=say("piece"))
    axis.plot(x, layer(x, training=False), color=BLUE, linewidth=4, alpha=0.55, zorder=3,
              label=say("maximum"))  # fmt: skip
    handles, names = axis.get_legend_handles_labels()
    axis.legend(handles[-2:], names[-2:], fontsize=8, loc="upper center")

    sheet.text(5.3, 2.97, "Maxout(units=3, pieces=4)", 9.5)
    inputs = [(3.95, 0.8 + 0.4 * n) for n in range(4)]
    chosen = (2, 0, 3)
    for unit, middle in enumerate((2.2, 1.4, 0.6)):
        for piece in range(4):
            spot = 5.0 + 0.3 * piece, middle
            for place in inputs:
                style = {"color": GRAY, "linewidth": 0.3, "alpha": 0.6, "zorder": 1}
                sheet.axis.plot(*zip(place, spot), **style)
            colour, share = (BLUE, 0.9) if piece == chosen[unit] else (GRAY, 0.4)
            style = {"color": tint(colour, share), "markeredgecolor": colour}
            sheet.axis.plot(*spot, "o", markersize=11, **style)
        sheet.frame((4.82, middle - 0.19, 1.26, 0.38), BLUE, 1.2)
        sheet.arrow((6.08, middle), (6.5, middle), colour=BLUE)
        sheet.axis.plot(6.65, middle, "o", markersize=13, color=BLUE)
        sheet.text(6.65, middle, unit + 1, 8, color="white", zorder=5)
    for place in inputs:
        sheet.axis.plot(*place, "o", markersize=9, color=PURPLE)
    sheet.text(3.95, 0.5, say("inputs"), 8)
    sheet.text(5.35, 2.6, say("pieces"), 8)
    sheet.text(6.45, 2.6, say("largest"), 8)
    sheet.text(6.65, 0.25, say("unit"), 8)
    return sheet


def jitter_steps(stack):
    """Returns the stack after each of `jitter`'s steps, the crop's corner, and the result."""
    for number in range(100):  # the first draw that shows something: far off the middle, mirrored
        seed = tf.constant([0, number], tf.int64)
        crop_seed, _ = tf.unstack(tf.random.experimental.stateless_split(seed, 2))
        enlarged = resize(stack, (286, 286))
        places = tf.reshape(tf.range(286 * 286), (286, 286, 1))
        corner = tf.image.stateless_random_crop(places, (256, 256, 1), crop_seed)[0, 0, 0]
        top, left = divmod(int(corner), 286)
        cropped = enlarged[top : top + 256, left : left + 256]
        result = jitter(stack, seed)
        mirrored = bool(tf.reduce_all(result == cropped[:, ::-1]))
        if mirrored and abs(left - 15) > 8 and abs(top - 15) > 5:
            return enlarged, (top, left), cropped, result
    raise AssertionError("no such draw")


def draw_pair(say, args):
    """A pair's way from its file to the networks: real pictures, by common.py's functions."""
    sheet, path = Sheet(4.55), shown_pair(args.dataset, "train", TRAINED)
    left, right = (tf.cast(half, tf.float32) / 127.5 - 1.0 for half in decode_pair(path))
    stack = read_stack(path, common.describe_dataset(args.dataset)["direction"])
    sheet.text(0.1, 4.4, say("file"), ha="left")
    sheet.picture(0.1, 3.4, 1.7, tf.concat([left, right], axis=1), height=0.85)
    sheet.axis.plot([0.95, 0.95], [3.32, 4.3], color=ORANGE, linestyle="--", linewidth=1.5)
    sheet.arrow((1.88, 3.82), (2.2, 3.82))
    sheet.text(2.28, 4.4, say("halves"), ha="left")
    sheet.picture(2.28, 3.4, 0.85, left)
    sheet.picture(3.23, 3.4, 0.85, right)
    sheet.arrow((4.16, 3.82), (4.46, 3.82))
    sheet.text(4.4, 4.4, say("stack"), ha="left")
    for place in range(5, -1, -1):  # the last channel at the back
        x, y = 4.55 + 0.27 * place, 3.33 + 0.02 * place
        frame = (ORANGE, GREEN, BLUE)[place % 3]
        sheet.picture(x, y, 0.8, stack[..., place : place + 1], frame=frame, zorder=3 - place / 9)
    sheet.text(5.3, 3.2, f"{tuple(stack.shape)}", 8)
    sheet.text(0.95, 3.2, f"{(left.shape[0], 2 * left.shape[1], 3)}", 8)
    sheet.text(3.18, 3.2, f"2 × {tuple(left.shape)}", 8)

    enlarged, (row, column), cropped, result = jitter_steps(stack)
    unit = 0.95 / 256  # inches of a pixel, from here on
    columns = (0.9, enlarged, "enlarged"), (2.55, cropped, "cropped"), (4.1, result, "mirrored")
    for x, picture, title in columns:
        size = picture.shape[0] * unit
        for half, y in zip(split_stack(picture), (1.62, 0.42)):
            sheet.picture(x, y, size, half)
        sheet.text(x + size / 2, 2.92, say(title))
        sheet.text(x + size / 2, 0.26, f"{tuple(picture.shape)}", 8)
        sheet.frame((x - 0.07, 0.36, size + 0.14, 2.39))
    for y in (1.62, 0.42):
        place = 0.9 + column * unit, y + (30 - row) * unit, 0.95, 0.95
        sheet.frame(place, ORANGE, 1.6)
    for name, half, y in zip(("condition", "target"), split_stack(result), (1.62, 0.42)):
        sheet.picture(5.75, y, 0.95, half)
        sheet.text(0.42, y + 0.5, say(name).replace(" ", "\n"), 8)
        sheet.text(6.22, y - 0.13, say(name), 8)
        sheet.arrow((5.2, y + 0.5), (5.7, y + 0.5))
    sheet.text(6.22, 2.92, say("split"))
    for x in (2.1, 3.65):
        sheet.arrow((x, 1.52), (x + 0.32, 1.52))
    return sheet


def block_shapes():
    """Runs encoder, decoder and PatchGAN; returns (height, channels) after each of their blocks.

    The networks have one filter here; the course's have FILTERS times as many channels.
    """
    picture = tf.zeros((1, *common.IMAGE_SIZE, 3))
    generator, judge = common.EncoderDecoder(1), common.PatchGAN(1)

    def run(blocks, x):
        for block in blocks:
            x = block(judge.pad(x) if block is judge.last_block else x, training=False)
            yield x.shape[1], x.shape[3] * common.FILTERS

    halves = list(run(generator.encoder + generator.decoder, picture))
    judges = list(run([*judge.blocks, judge.last_block], tf.concat([picture, picture], axis=-1)))
    return halves[:8], halves[8:], [*judges, (judge(picture, picture, training=False).shape[1], 1)]


SCALE, CHANNEL = 1.05 / 256, 0.00045  # inches of a pixel of height, and of a channel's width


def draw_blocks(sheet, x, y, blocks):
    """Draws maps in a row, to scale, each seen from its side; returns their middles.

    A block is (height, [(channels, colour), ...]); a U-Net's decoder has a second part, the skip.
    """
    middles = []
    for height, parts in blocks:
        width = CHANNEL * sum(channels for channels, _ in parts)
        slot = max(width, 0.3)
        left = x + (slot - width) / 2
        for place, (channels, colour) in enumerate(parts):
            sheet.block(left, y - height * SCALE / 2, CHANNEL * channels, height * SCALE, colour)
            left += CHANNEL * channels
            text = f"+{channels}" if place else channels
            sheet.text(x + slot / 2, y - 0.84 - 0.14 * place, text, 7.5)
        sheet.text(x + slot / 2, y - 0.68, height, 7.5, color=GRAY)
        middles.append(x + slot / 2)
        x += slot + 0.045
    return middles


def draw_networks(say, args):
    """Encoder-Decoder, U-Net and PatchGAN to scale, with every block's shape, and the skips."""
    sheet = Sheet(6.6)
    encoder, decoder, patchgan = block_shapes()
    condition, target = read_pair(args.dataset)
    ends = [(256, [(3, GRAY)])]
    down = [(height, [(channels, SKY)]) for height, channels in encoder]
    sheet.text(0.1, 6.22, say("scale_note"), 8, ha="left", color=GRAY)
    for name, y in (("encoder_decoder", 5.55), ("unet", 3.3)):
        up = [(height, [(channels, BLUE)]) for height, channels in decoder]
        if name == "unet":
            skips = reversed(encoder[:-1])
            up = [(h, [*parts, (skip[1], SKY)]) for (h, parts), skip in zip(up, skips)]
        x = 0.2 if name == "unet" else 0.5
        middles = draw_blocks(sheet, x, y, ends + down + up + ends)
        sheet.text(0.1, y + 0.87, say(name), 9.5, ha="left", weight="bold")
        sheet.text(middles[8], y - 0.15, say("bottleneck"), 8)
        for level in range(7 if name == "unet" else 0):
            height, channels = encoder[6 - level]
            height *= SCALE / 2
            start, end = middles[7 - level], middles[9 + level] + CHANNEL * channels / 2
            top = y + 0.12 + 0.08 * level
            points = (start, y + height), (start, top), (end, top), (end, y + height)
            sheet.arrow(*points, colour=SKY, width=1)
    sheet.text(0.1, 1.87, say("patchgan"), 9.5, ha="left", weight="bold")
    for x, picture, name in ((0.2, condition, "sketch"), (1.35, target, "picture")):
        sheet.picture(x, 0.55, 1.05, picture[0])
        sheet.text(x + 0.52, 0.4, say(name), 8)
    sheet.arrow((2.45, 1.08), (2.95, 1.08))
    sheet.text(2.7, 1.35, say("concatenation"), 8)
    blocks = [(256, [(3, GRAY), (3, GRAY)])]
    blocks += [(height, [(channels, ORANGE)]) for height, channels in patchgan]
    middles = draw_blocks(sheet, 3.0, 1.08, blocks)
    sheet.arrow((middles[-1] + 0.15, 1.08), (5.45, 1.08))
    cells = tf.cast(tf.range(30)[:, tf.newaxis] + tf.range(30), tf.float32) % 2
    style = {"cmap": "Oranges", "vmin": 0, "vmax": 4, "interpolation": "nearest"}
    sheet.picture(5.6, 0.55, 1.05, cells, **style)
    sheet.text(6.12, 0.4, say("logits"), 8)
    return sheet


def draw_patchgan(say, args):
    """One judge for the picture and 30 x 30 of them; how pixels' correlation falls."""
    sheet = Sheet(6.1)
    model = trained(args.dataset, args.run)
    condition, real, fake, real_logits, fake_logits = judged(args.dataset, args.run)
    sheet.text(0.1, 5.95, say("one_judge"), 9.5, ha="left", weight="bold")
    sheet.picture(0.2, 4.75, 1.0, real)
    sheet.arrow((1.28, 5.25), (1.75, 5.25))
    sheet.box((1.8, 4.95, 1.2, 0.6), say("judge"), DISCRIMINATOR, 9)
    sheet.arrow((3.05, 5.25), (3.5, 5.25))
    sheet.block(3.55, 5.13, 0.24, 0.24, GRAY, facecolor=tint(GRAY))
    sheet.text(3.95, 5.25, say("one_number"), ha="left")

    sheet.text(0.1, 4.5, say("many_judges"), 9.5, ha="left", weight="bold")
    row, column = 11, 17
    field = importlib.import_module("04_pix2pix_models").measure_receptive_field
    top, left, height, width = field(model.discriminator, row, column)[1]
    unit, cell = 1.45 / 256, 1.45 / 30
    kinds = (0.15, real, real_logits, "real"), (3.4, fake, fake_logits, "generated")
    for x, picture, logits, name in kinds:
        sheet.picture(x, 2.65, 1.45, picture)
        image = sheet.picture(x + 1.7, 2.65, 1.45, logits, **LOGITS)
        window = x + left * unit, 4.1 - (top + height) * unit, width * unit, height * unit
        spot = x + 1.7 + column * cell, 4.1 - (row + 1) * cell, cell, cell
        sheet.frame(spot, "white", 3.5)
        for place in (window, spot):
            sheet.frame(place, BLACK, 1.6)
        for up in (0, 1):  # from the window's corners to the cell
            start = window[0] + window[2], window[1] + up * window[3]
            end = spot[0], spot[1] + up * cell
            sheet.axis.plot(*zip(start, end), color=BLACK, linewidth=0.8, zorder=4)
        sheet.text(x + 0.72, 4.24, say(name))
        mean = f"{float(tf.reduce_mean(logits)):+.1f}".replace("-", "−")
        sheet.text(x + 2.42, 4.24, f"{say('mean')} {mean}")
    place = sheet.figure.add_axes((2.3 / WIDTH, 2.5 / 6.1, 2.4 / WIDTH, 0.07 / 6.1))
    bar = sheet.figure.colorbar(image, cax=place, orientation="horizontal", extend="both")
    bar.ax.tick_params(labelsize=7.5, length=2, pad=1)
    sheet.text(4.85, 2.53, say("fake_or_real"), 8, ha="left")

    sheet.text(0.1, 2.1, say("why"), 9.5, ha="left", weight="bold")
    distances, *curves = correlations(args.dataset)
    names = {"x_name": say("distance"), "y_name": say("correlation")}
    axis = sheet.axes(0.55, 0.5, 4.3, 1.4, **names, xlim=(0, 180), ylim=(0, 1.02))
    for values, name, colour, line in zip(curves, ("as_is", "less_mean"), (SKY, BLUE), ("--", "-")):
        axis.plot(distances, values, color=colour, linestyle=line, linewidth=2, label=say(name))
    axis.axvline(70, color=BLACK, linestyle=":", linewidth=1.2)
    axis.text(72, 0.85, say("patch"), fontsize=8)
    axis.legend(fontsize=8, loc="upper right")
    sheet.picture(5.25, 0.45, 1.45, real)
    for x, y in ((5.75, 0.75), (5.75 + 70 * unit, 0.75)):
        sheet.axis.plot(x, y, "o", markersize=6, color=BLACK, markeredgecolor="white", zorder=5)
    style = {"arrowstyle": "<->", "color": BLACK, "shrinkA": 3, "shrinkB": 3}
    sheet.text(5.75 + 35 * unit, 0.87, "70", 8, weight="bold", zorder=5)
    sheet.axis.annotate("", (5.75, 0.75), (5.75 + 70 * unit, 0.75), arrowprops=style, zorder=5)
    return sheet


def draw_step(say, args):
    """One train step of Pix2Pix: what is computed, two tapes, two ways back."""
    sheet = Sheet(5.5)
    condition, real, fake, real_logits, fake_logits = judged(args.dataset, args.run)
    sheet.picture(0.15, 2.2, 0.9, condition)
    sheet.text(0.6, 2.07, say("c"))
    sheet.picture(2.6, 3.85, 0.9, real)
    sheet.text(3.05, 4.88, say("x"))
    sheet.picture(2.6, 2.2, 0.9, fake)
    sheet.text(3.05, 2.07, say("fake"))
    sheet.box((1.4, 2.3, 0.8, 0.7), "U-Net", GENERATOR)
    sheet.box((4.15, 2.2, 0.85, 2.55), "Patch-\nGAN", DISCRIMINATOR)
    sheet.box((2.5, 3.3, 1.1, 0.34), r"L1 = $|x-G(c)|$", GENERATOR, 8)
    sheet.arrow((1.05, 2.65), (1.4, 2.65))
    sheet.arrow((2.2, 2.65), (2.6, 2.65))
    sheet.arrow((3.5, 4.3), (4.15, 4.3))
    sheet.arrow((3.5, 2.65), (4.15, 2.65))
    sheet.arrow((3.05, 3.85), (3.05, 3.64))
    sheet.arrow((3.05, 3.1), (3.05, 3.3))
    sheet.arrow((0.6, 3.1), (0.6, 5.1), (4.57, 5.1), (4.57, 4.75), colour=GRAY)
    sheet.text(0.7, 5.24, say("both_see"), ha="left")
    for y, logits, name in ((3.85, real_logits, "(c, x)"), (2.2, fake_logits, "(c, G(c))")):
        sheet.picture(5.45, y, 0.9, logits, **LOGITS)
        sheet.text(5.9, y + 1.1, say("logits_of") + name, 8)
        sheet.arrow((5.0, y + 0.45), (5.45, y + 0.45))
    sheet.box((2.2, 0.75, 1.95, 0.72), "g_loss\n" + r"$-\log D(c,G(c))+100\cdot$L1", GENERATOR, 8)
    lines = r"$-\log D(c,x)$" + "\n" + r"$-\log(1-D(c,G(c)))$"
    sheet.box((5.05, 0.75, 1.75, 0.72), "d_loss\n" + lines, DISCRIMINATOR, 8)
    sheet.arrow((3.6, 3.47), (3.82, 3.47), (3.82, 1.47))
    sheet.arrow((5.9, 2.2), (5.9, 1.47))
    sheet.arrow((6.35, 4.3), (6.6, 4.3), (6.6, 1.47))
    sheet.arrow((5.6, 2.2), (5.6, 1.75), (4.0, 1.75), (4.0, 1.47))
    style = {"colour": GENERATOR, "dashed": True, "width": 1.8}
    sheet.arrow((2.2, 1.16), (1.8, 1.16), (1.8, 2.3), **style)
    lines = [(say("g_tape"), style), (say("d_tape"), style | {"colour": DISCRIMINATOR})]
    sheet.arrow((5.05, 1.1), (4.57, 1.1), (4.57, 2.2), **lines[1][1])
    sheet.legend(0.2, 0.5, lines)
    return sheet


SHIRTS = (170, 40, 45), (60, 110, 215), (95, 190, 90)  # red, blue, green; 0 to 255


def draw_shirt(sheet, x, y, size, colour):
    """Draws a T-shirt."""
    outline = [(0.3, 1), (0.42, 0.9), (0.58, 0.9), (0.7, 1), (1, 0.78), (0.88, 0.56), (0.76, 0.64),
               (0.76, 0), (0.24, 0), (0.24, 0.64), (0.12, 0.56), (0, 0.78)]  # fmt: skip
    points = [(x + size * across, y + size * up) for across, up in outline]
    face = "white" if colour is None else [value / 255 for value in colour]
    style = {"facecolor": face, "edgecolor": BLACK, "linewidth": 1.4, "joinstyle": "round"}
    sheet.axis.add_patch(Polygon(points, **style))


def draw_l1(say, args):
    """L1's compromise: the median of three right colours; what two losses made of a sketch."""
    more = 1.85 if args.losses else 0.0
    sheet = Sheet(1.85 + more)
    shirts = tf.constant(SHIRTS, tf.float32)
    median = tf.sort(shirts, axis=0)[1]  # of each channel
    draw_shirt(sheet, 0.12, 0.5 + more, 0.8, None)
    sheet.text(0.52, 1.65 + more, say("one_sketch"))
    sheet.arrow((0.97, 0.9 + more), (1.25, 0.9 + more))
    sheet.text(2.58, 1.65 + more, say("three_answers"))
    for place, colour in enumerate(SHIRTS):
        draw_shirt(sheet, 1.3 + 0.88 * place, 0.5 + more, 0.8, colour)
    sheet.text(5.35, 1.65 + more, say("always"))
    answers = tf.concat([shirts, median[tf.newaxis]], axis=0)
    distances = tf.reduce_mean(tf.abs(answers[:, tf.newaxis] - shirts), axis=(1, 2)) / 127.5
    for place, (answer, distance) in enumerate(zip(answers, distances)):
        x, height = 4.15 + 0.66 * place, 1.5 * float(distance)
        sheet.block(x, 0.5 + more, 0.5, height, BLACK, facecolor=[float(v) / 255 for v in answer])
        sheet.text(x + 0.25, 0.61 + more + height, f"{float(distance):.2f}")
    sheet.text(6.38, 0.36 + more, say("median"), 8)
    sheet.text(6.38, 0.2 + more, say("safest"), 8, weight="bold")
    if args.losses:
        draw_losses(sheet, say, args)
    return sheet


def loss_name(flags):
    """Returns the name of a run's loss: L1, cGAN or L1 + cGAN."""
    return flags["--loss"].replace("l1", "L1").replace("cgan", "cGAN").replace("+", " + ")


def draw_losses(sheet, say, args):
    """Draws what the generators of some runs made of the sketch that is shown."""
    condition, real = read_pair(args.dataset)
    drawn = {say("sketch"): condition[0]}
    for run in args.losses:
        generator, flags = common.load_generator(run)
        drawn[loss_name(flags)] = generate(generator, condition)[0]
    sheet.text(0.15, 1.75, say("same_sketch"), 9.5, ha="left", weight="bold")
    for place, (name, picture) in enumerate((drawn | {say("target"): real[0]}).items()):
        sheet.picture(0.15 + 1.37 * place, 0.3, 1.25, picture)
        sheet.text(0.78 + 1.37 * place, 0.16, name)


def draw_architectures(say, args):
    """The paper's figure 5 on our pairs: both generators with two losses, of two sketches each."""
    names, width = {"encoder-decoder": say("no_skips"), "unet": say("skips")}, 0.8
    paths = common.find_pairs(args.dataset)["val"]
    # The pair of all figures, and one with round eyes and a hand.
    shown = [shown_pair(args.dataset), common.spread(paths, 6)[-3:][0]]
    pairs = [split_stack(resize(read_stack(path, "AtoB"))[tf.newaxis]) for path in shown]
    step = width + 0.03
    sheet = Sheet(2 * step + 0.32)
    heights = {"encoder-decoder": step + 0.08, "unet": 0.08}
    for kind, name in names.items():
        style = {"rotation": "vertical", "weight": "bold", "linespacing": 1.4}
        sheet.text(0.18, heights[kind] + width / 2, name, 7, **style)
    for number, (condition, real) in enumerate(pairs):
        left, middle = 0.36 + 3.33 * number, 0.08 + step / 2
        drawn = [(0, middle, say("sketch"), condition), (3, middle, say("target"), real)]
        for run in args.architectures:
            generator, flags = common.load_generator(run)
            place = 1 if flags["--loss"] == "l1" else 2, heights[flags["--generator"]]
            name = loss_name(flags) if flags["--generator"] == "encoder-decoder" else ""
            drawn.append((*place, name, generate(generator, condition)))
        for column, y, name, picture in drawn:
            sheet.picture(left + column * step, y, width, picture[0])
            sheet.text(left + column * step + width / 2, 2 * step + 0.2, name, 7.5)
    return sheet


FIGURES = {
    "gan": draw_gan,
    "cgan": functools.partial(draw_gan, conditional=True),
    "log_losses": draw_log_losses,
    "maxout": draw_maxout,
    "pair": draw_pair,
    "networks": draw_networks,
    "patchgan": draw_patchgan,
    "step": draw_step,
    "l1": draw_l1,
    "architectures": draw_architectures,
}


# === Command line ===========================================================


def render(strokes, size, pen):
    """Draws strokes as the pad's pen does; returns (1, size, size, 3) in [-1, 1]."""
    fine = 4  # times larger while drawn, for soft edges
    sheet = Image.new("L", (fine * size, fine * size), 255)
    draw, radius = ImageDraw.Draw(sheet), fine * pen / 2
    for stroke in strokes:
        points = [(fine * x, fine * y) for x, y in stroke]
        draw.line(points, fill=0, width=round(2 * radius), joint="curve")
        for x, y in (points[0], points[-1]):
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=0)
    pixels = tf.io.decode_raw(sheet.reduce(fine).convert("RGB").tobytes(), tf.uint8)
    return tf.cast(tf.reshape(pixels, (1, size, size, 3)), tf.float32) / 127.5 - 1.0


def draw_drawings(run, out):
    """Colours tests/drawings.json by a run's best epoch: twelve in a figure, four in a row."""
    sheet = json.loads((HERE.parent / "tests" / "drawings.json").read_text(encoding="utf-8"))
    generator, tiles = common.load_generator(run, best=True)[0], []
    for drawing in sheet["drawings"]:
        condition = render(drawing["strokes"], sheet["size"], sheet["pen"])
        tiles += [condition[0], generate(generator, condition)[0]]
    rows = [tiles[n : n + 8] for n in range(0, len(tiles), 8)]
    common.save_grid(out / "drawings.png", rows[:3], scale=0.6)
    common.save_grid(out / "more_drawings.png", rows[3:], scale=0.6)


def font_files():
    """Returns the Korean font's files, regular and bold; none if it is not installed."""
    return [path for path in font_manager.findSystemFonts() if Path(path).stem in FONT_FILES]


def fonts(language):
    """Returns Matplotlib's settings for a language's letters; raises UserError without a font."""
    if language == "en":
        return {"font.family": "DejaVu Sans"}
    if not (files := font_files()):
        cure = "Debian and Ubuntu: apt install fonts-nanum; or --language en"
        raise common.UserError(f"the Korean words need the font {FONT}. {cure}")
    for path in files:
        font_manager.fontManager.addfont(path)
    names = {font_manager.FontProperties(fname=path).get_name() for path in files}
    return {"font.family": [*sorted(names), "DejaVu Sans"]}  # the last has signs they lack


def draw(name, language, args):
    """Draws one figure with one language's words, and writes it; returns its path."""
    path = args.out / ("ko" if language == "ko" else "") / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(fonts(language)), common.replacing(path) as temporary:
        sheet = FIGURES[name](functools.partial(word, language), args)
        sheet.figure.savefig(temporary, format="png", dpi=DPI)
    return path


def parse_flags(argv):
    parser = common.parser_of(__doc__)
    add, path = parser.add_argument, Path
    add("--only", choices=FIGURES, metavar="NAME", help=f"one of {', '.join(FIGURES)}")
    add("--language", choices=["en", "ko"], help="only this language")
    add("--dataset", default="emoji", metavar="NAME|DIR", help="pairs to show (emoji)")
    add("--run", type=path, metavar="RUN", help="a run of stage 5 whose networks are shown")
    help_text = "for the figure l1: runs of stage 5 with --loss l1, l1+cgan, or cgan"
    add("--losses", type=path, nargs="+", metavar="RUN", help=help_text)
    help_text = "for the figure architectures: runs of both generators, with L1 and L1 + cGAN"
    add("--architectures", type=path, nargs="+", metavar="RUN", help=help_text)
    help_text = "draw only tests/drawings.json, coloured by the best epoch of this run"
    add("--drawings", type=path, metavar="RUN", help=help_text)
    add("--out", type=path, default=HERE / "course", metavar="DIR", help="folder (docs/course)")
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_flags(argv)
    if args.drawings:
        draw_drawings(args.drawings, args.out)
        return
    languages = [args.language] if args.language else ["en", "ko"]
    for language in languages:
        fonts(language)  # says what is missing before anything is drawn
    figures = [name for name in FIGURES if name != "architectures" or args.architectures]
    for name in [args.only] if args.only else figures:
        for language in languages:
            print(draw(name, language, args), flush=True)


if __name__ == "__main__":
    common.run_main(main)
