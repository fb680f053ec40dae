"""The figures show the pictures and numbers that they name, in the right places."""

import math

import common

import pytest
import tensorflow as tf
from conftest import near
from PIL import Image

RED, GREEN, BLUE, WHITE = [1.0, -1.0, -1.0], [-1.0, 1.0, -1.0], [-1.0, -1.0, 1.0], [1.0, 1.0, 1.0]


def flat(colour, side=40):
    return tf.broadcast_to(tf.constant(colour), (side, side, 3))


@pytest.fixture
def figures(monkeypatch):
    """Keeps figures in a dict by their file names, instead of writing them."""
    drawn = {}
    monkeypatch.setattr(common, "save_figure", lambda f, path: drawn.update({path.name: f}))
    return drawn


def shown(axis):
    """Returns what an axis shows as a float tensor, 0 to 1."""
    data = tf.cast(tf.constant(axis.images[0].get_array().data), tf.float32)
    return data / 255.0 if float(tf.reduce_max(data)) > 1.0 else data


def test_grid_has_its_pictures_in_their_places(tmp_path):
    """Broken if rows and columns are swapped, or colours are not those of the pictures."""
    rows = [[flat(RED), flat(GREEN), flat(BLUE)], [flat(WHITE), flat(BLUE), flat(RED)]]
    titles = {"titles": ["a", "$5_$", "c"], "row_titles": ["one", "two"]}
    common.save_grid(tmp_path / "grid.png", rows, **titles, scale=3.0)
    image = Image.open(tmp_path / "grid.png").convert("RGB")
    found = {}
    for y in range(image.height):
        for x in range(image.width):
            found.setdefault(image.getpixel((x, y)), []).append((x, y))
    reds, greens, blues = (found[colour] for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255)))
    top_red, green, low_red = min(reds), greens[0], max(reds)
    assert top_red[0] < green[0] < low_red[0] and top_red[1] < low_red[1]
    assert len(greens) == pytest.approx(120 * 120, rel=0.2), "scale: 3 pixels of the page for one"
    assert len(reds) == pytest.approx(2 * len(greens), rel=0.1)
    assert len(blues) == pytest.approx(len(reds), rel=0.1)


def test_grid_shows_grays_as_they_are(tmp_path):
    """Broken if a value in [-1, 1] is not drawn as its gray, with three channels or with one."""
    for channels, value, gray in ((1, 0.0, 127), (3, 0.0, 127), (1, -1.0, 0), (3, 0.5, 191)):
        picture = tf.fill((40, 40, channels), value)
        common.save_grid(tmp_path / "grid.png", [[picture]], scale=3.0)
        counts = Image.open(tmp_path / "grid.png").convert("L").histogram()
        counts[255] = 0  # the page
        assert max(range(256), key=counts.__getitem__) == pytest.approx(gray, abs=1)


def test_grid_of_large_pictures_is_no_larger(tmp_path):
    """Broken if larger pictures make a larger grid: --size 4096 would need 12,000 pixels."""
    for side in (512, 1024):
        common.save_grid(tmp_path / f"{side}.png", [[flat(RED, side)]])
    sizes = [Image.open(tmp_path / f"{side}.png").size for side in (512, 1024)]
    assert sizes[0] == pytest.approx(sizes[1], abs=3)


LOSSES = [{"epoch": 1.0, "step": x, "d_real": 0.5, "g_l1": 0.1 * x} for x in (10.0, 20.0)]
BASELINE = {"condition_l1": 0.5, "condition_psnr": 9.0, "condition_ssim": 0.7}
SCORES = [
    {"epoch": 1.0, "val_l1": 0.3, "val_psnr": 10.0, "val_ssim": 0.8} | BASELINE,
    {"epoch": 2.0, "val_l1": 0.2, "val_psnr": 11.0, "val_ssim": 0.9} | BASELINE,
]


def curves(figure):
    """Returns {title: {label: (x, y)}} of a figure's panels."""
    panels = {}
    for axis in figure.axes:
        lines = {x.get_label(): (list(x.get_xdata()), list(x.get_ydata())) for x in axis.lines}
        panels[axis.get_title()] = lines
    return panels


def test_curves_are_those_of_the_tables(figures, tmp_path):
    """Broken if a panel shows another column than its title says, or over other steps or epochs."""
    common.draw_curves(tmp_path / "losses.png", LOSSES, SCORES)
    panels = curves(figures["losses.png"])
    training = ["L1, training", "adversarial losses, training"]
    assert list(panels) == [*training, "L1, validation", "PSNR, validation", "SSIM, validation"]
    assert panels["L1, training"] == {"g_l1": ([10.0, 20.0], [1.0, 2.0])}
    adversarial = panels["adversarial losses, training"]
    assert adversarial["d_real"] == ([10.0, 20.0], [0.5, 0.5])
    assert adversarial["log 2: cannot tell"][1] == [math.log(2)] * 2 and len(adversarial) == 2
    wanted = ("l1", [0.3, 0.2], 0.5), ("psnr", [10.0, 11.0], 9.0), ("ssim", [0.8, 0.9], 0.7)
    for name, values, level in wanted:
        panel = panels[f"{name.upper()}, validation"]
        assert panel[f"val_{name}"] == ([1.0, 2.0], values)
        assert panel["the condition itself"][1] == [level, level]
    common.draw_curves(tmp_path / "losses.png", [row | {"d_wrong": 0.4} for row in LOSSES], [])
    panels = curves(figures["losses.png"])  # stage 2: log 2 is not the level of "cannot tell"
    assert set(panels["adversarial losses, training"]) == {"d_real", "d_wrong"}


@pytest.mark.parametrize("direction", ["AtoB", "BtoA"])
def test_pairs_png_shows_each_half_in_its_column(direction, stage3, figures, few_pairs, tmp_path):
    """Broken if stage 3 calls the target the condition, or does not split at the middle."""
    paths = common.find_pairs(few_pairs)["train"]
    stage3.draw_pairs(tmp_path / "pairs.png", paths, direction)
    axes = figures["pairs.png"].axes
    titles = ["the file, split at the middle", "condition", "target"]
    assert len(axes) == 3 * 4 and [axis.get_title() for axis in axes[:3]] == titles
    for row, path in enumerate(paths):
        halves = [tf.cast(half, tf.float32) / 255.0 for half in common.decode_pair(path)]
        file, *pictures = (shown(axis) for axis in axes[3 * row : 3 * row + 3])
        assert near(file, tf.concat(halves, axis=1), 1e-2)
        wanted = halves if direction == "AtoB" else halves[::-1]
        assert all(near(picture, half, 1e-2) for picture, half in zip(pictures, wanted))
        assert axes[3 * row].lines[0].get_xdata()[0] == 255.5


def test_histograms_and_table_show_both_halves(stage3, figures, few_pairs, tmp_path, capsys):
    """Broken if a histogram, or a number in stage 3's table, belongs to another half or channel."""
    paths = common.find_pairs(few_pairs)["train"]
    looks = [stage3.look(path, "AtoB") for path in paths]
    stacks = tf.stack([common.read_stack(path, "AtoB") for path in paths])  # (4, 256, 256, 6)
    stage3.draw_histograms(tmp_path / "histograms.png", looks)
    axes = figures["histograms.png"].axes
    titles = ["values of the condition", "values of the target", "ink"]
    assert [axis.get_title() for axis in axes] == titles
    drawn = [patch for axis in axes[:2] for patch in axis.patches]
    assert [patch.get_label() for patch in drawn] == [*"RGBRGB"]
    for patch, values in zip(drawn, tf.unstack(stacks, axis=-1)):
        counts = tf.histogram_fixed_width(tf.round((values + 1) * 127.5), (-0.5, 255.5), 256)
        shares = tf.constant(patch.get_data().values.tolist())
        tf.debugging.assert_near(shares, tf.cast(counts, tf.float32) / 4 / 256**2, atol=1e-6)
    assert sum(bar.get_height() for bar in axes[2].patches) == 4
    stage3.print_table({"train": looks}, {"train": ["a", "b", "c"]})
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["train", "4", "3", "256x256", "(4)"] in lines
    for n, (half, values) in enumerate(zip(("condition", "target"), common.split_stack(stacks))):
        (line,) = [line for line in lines if line[:2] == ["train", half]]
        numbers = [tf.reduce_mean(values, (0, 1, 2)), tf.math.reduce_std(values, (0, 1, 2))]
        numbers = [float(number) for number in tf.concat(numbers, axis=0)]
        assert [float(text) for text in line[2:8]] == pytest.approx(numbers, abs=2e-3)
        assert float(line[8]) == pytest.approx(sum(look.colours[n] for look in looks) / 4, abs=0.5)
        ink = f"{sum(look.ink for look in looks) / 4:.1%}"
        assert line[9:] == ([] if n else [ink])


def test_skips_png_shows_both_generators(stage4, grids, monkeypatch, tmp_path):
    """Broken if a column of skips.png is drawn by another generator than its title says."""
    monkeypatch.setattr(stage4, "generate", lambda generator, condition: condition + generator)
    pairs = [[tf.fill((1, 2, 2, 3), x + n) for x in (0.0, 100.0)] for n in (0.0, 1.0)]
    stage4.draw_skips(tmp_path / "x.png", 10.0, 20.0, pairs[:1], pairs[1:])
    ((_, rows, kind),) = grids
    values = [[float(tile[0, 0, 0]) for tile in row] for row in rows]
    assert values == [[0, 10, 20, 100], [1, 11, 21, 101]]
    assert kind["titles"] == ["sketch", "Encoder-Decoder", "U-Net", "real"]
    assert [title.split()[0] for title in kind["row_titles"]] == ["trained", "validation:"]


def test_patches_and_receptive_field(stage4, figures, monkeypatch, tmp_path):
    """Broken if logits are shown for the wrong picture, or the receptive field is misplaced."""
    monkeypatch.setattr(stage4, "generate", lambda generator, condition: condition + generator)

    def judge(sketch, picture, training):
        return tf.fill((1, 30, 30, 1), tf.reduce_mean(picture - sketch))

    sketch, real = tf.fill((1, 8, 8, 3), -0.5), tf.ones((1, 8, 8, 3))
    stage4.draw_patches(tmp_path / "patches.png", judge, 0.25, sketch, real)
    axes = figures["patches.png"].axes[:6]
    wanted = [0.25, 1.0, 1.5, 0.25, 0.375, 0.25]  # sketch and picture in [0, 1], and the logits
    arrays = [axis.images[0].get_array() for axis in axes]
    assert [float(array.max()) for array in arrays] == pytest.approx(wanted)
    assert "mean +1.50" in axes[2].get_title() and "mean +0.25" in axes[5].get_title()
    gradient = tf.pad(tf.ones((70, 60)), [[20, 166], [30, 166]])
    path = tmp_path / "field.png"
    stage4.draw_receptive_field(path, gradient, (20, 30, 70, 60), tf.zeros((256, 256, 3)))
    left, right = figures["field.png"].axes
    for axis in (left, right):
        (box,) = axis.patches
        assert (*box.get_xy(), box.get_width(), box.get_height()) == (29.5, 19.5, 60, 70)
    assert near(shown(left), gradient, 1e-2) and "70x60 of 256x256" in right.get_title()
