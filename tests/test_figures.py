"""What the figures and pages show: the pictures they say, in the places they say."""

import argparse
import html
import json
import math
import re
import shutil

import common

import pytest
import tensorflow as tf
from PIL import Image

RED, GREEN, BLUE, WHITE = [1.0, -1.0, -1.0], [-1.0, 1.0, -1.0], [-1.0, -1.0, 1.0], [1.0, 1.0, 1.0]


def flat(colour, size=(40, 40)):
    return tf.broadcast_to(tf.constant(colour), (*size, 3))


@pytest.fixture
def figures(monkeypatch):
    """Keeps figures in a dict by their files' names, in place of writing them."""
    drawn = {}
    monkeypatch.setattr(common, "save_figure", lambda figure, path: drawn.update({path.name: figure}))
    return drawn


def shown(axis):
    """Returns what an axis shows as a float tensor, 0 to 1."""
    data = tf.cast(tf.constant(axis.images[0].get_array().data), tf.float32)
    return data / 255.0 if float(tf.reduce_max(data)) > 1.0 else data


def near(one, other, tolerance=1e-2):
    return one.shape == other.shape and float(tf.reduce_max(tf.abs(one - other))) < tolerance


def test_a_grid_has_its_pictures_in_their_places(tmp_path):
    """Broken if rows and columns of a grid are exchanged, or its colours are not those of the pictures."""
    rows = [[flat(RED), flat(GREEN), flat(BLUE)], [flat(WHITE), flat(BLUE), flat(RED)]]
    common.save_grid(
        tmp_path / "grid.png", rows, titles=["a", "b", "c"], row_titles=["one", "two"], scale=3.0
    )
    image = Image.open(tmp_path / "grid.png").convert("RGB")
    found = {}
    for y in range(image.height):
        for x in range(image.width):
            found.setdefault(image.getpixel((x, y)), []).append((x, y))
    reds, greens, blues = (found[colour] for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255)))
    (top_red, low_red), green = ([min(reds), max(reds)], greens[0])
    assert top_red[0] < green[0] < low_red[0] and top_red[1] < low_red[1]
    assert len(greens) == pytest.approx(120 * 120, rel=0.2), "scale: pixels of the page for one of a picture"
    assert len(reds) == pytest.approx(2 * len(greens), rel=0.1) == pytest.approx(len(blues), rel=0.1)


def test_a_grid_shows_grays_as_they_are(tmp_path):
    """Broken if the middle of [-1, 1] is not drawn as middle gray, in colour or without."""
    for channels in (1, 3):
        for value, gray in ((0.0, 127), (-1.0, 0), (0.5, 191)):
            common.save_grid(tmp_path / "grid.png", [[tf.fill((40, 40, channels), value)]], scale=3.0)
            image = Image.open(tmp_path / "grid.png").convert("L")
            counts = image.histogram()
            counts[255] = 0  # the page
            assert max(range(256), key=counts.__getitem__) == pytest.approx(gray, abs=1)


def test_a_grid_of_large_pictures_is_no_larger(tmp_path):
    """Broken if result.png of --size 4096 is a page of 12,000 pixels."""
    for side in (512, 1024):
        common.save_grid(tmp_path / f"{side}.png", [[flat(RED, (side, side))]])
    sizes = [Image.open(tmp_path / f"{side}.png").size for side in (512, 1024)]
    assert sizes[0] == pytest.approx(sizes[1], abs=3)


LOSSES = [{"epoch": 1.0, "step": float(step), "d_real": 0.5, "g_l1": 0.1 * step} for step in (10, 20)]
SCORES = [
    {"epoch": 1.0, "val_l1": 0.3, "val_ssim": 0.8, "condition_l1": 0.5, "condition_ssim": 0.7},
    {"epoch": 2.0, "val_l1": 0.2, "val_ssim": 0.9, "condition_l1": 0.5, "condition_ssim": 0.7},
]


def curves(axis):
    return {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in axis.lines}


def test_curves_are_those_of_the_tables(figures, tmp_path):
    """Broken if a panel shows another column than its title says, or over other steps or epochs."""
    common.draw_curves(tmp_path / "losses.png", LOSSES, SCORES)
    panels = {axis.get_title(): curves(axis) for axis in figures["losses.png"].axes}
    assert list(panels) == [
        *("L1, training", "adversarial losses, training"),
        *("L1, validation", "SSIM, validation"),
    ]
    assert panels["L1, training"] == {"g_l1": ([10.0, 20.0], [1.0, 2.0])}
    adversarial = panels["adversarial losses, training"]
    assert adversarial["d_real"] == ([10.0, 20.0], [0.5, 0.5])
    assert adversarial["log 2: cannot tell"][1] == [math.log(2)] * 2 and len(adversarial) == 2
    assert panels["SSIM, validation"]["val_ssim"] == ([1.0, 2.0], [0.8, 0.9])
    assert panels["SSIM, validation"]["the condition itself"][1] == [0.7, 0.7]
    assert panels["L1, validation"]["the condition itself"][1] == [0.5, 0.5]


def test_stage_2_is_not_told_log_2(figures, tmp_path):
    """Broken if losses with a second kind of fake are compared with log 2, which says nothing of them."""
    rows = [row | {"d_wrong": 0.4} for row in LOSSES]
    common.draw_curves(tmp_path / "losses.png", rows, [])
    panels = {axis.get_title(): curves(axis) for axis in figures["losses.png"].axes}
    assert set(panels["adversarial losses, training"]) == {"d_real", "d_wrong"}
    figures.clear()
    common.draw_curves(tmp_path / "losses.png", [], [])
    assert not figures, "nothing to draw yet"


@pytest.mark.parametrize("direction", ["AtoB", "BtoA"])
def test_pairs_png_shows_each_half_in_its_column(direction, stage3, figures, few_pairs, tmp_path):
    """Broken if stage 3 calls the target the condition, or splits the file elsewhere than at its middle."""
    paths = common.find_pairs(few_pairs)["train"]
    stage3.draw_pairs(tmp_path / "pairs.png", paths, direction)
    axes = figures["pairs.png"].axes
    assert len(axes) == 3 * 4
    assert [axis.get_title() for axis in axes[:3]] == ["the file, split at the middle", "condition", "target"]
    for row, path in enumerate(paths):
        halves = [tf.cast(half, tf.float32) / 255.0 for half in common.decode_pair(path)]
        file, condition, target = (shown(axis) for axis in axes[3 * row : 3 * row + 3])
        assert near(file, tf.concat(halves, axis=1))
        for picture, half in zip((condition, target), halves if direction == "AtoB" else halves[::-1]):
            assert near(picture, half)
        assert axes[3 * row].lines[0].get_xdata()[0] == 255.5


def test_histograms_png_shows_both_halves(stage3, figures, few_pairs, tmp_path):
    """Broken if a histogram is of the other half, or of another channel than its colour says."""
    measures = stage3.measure(common.find_pairs(few_pairs)["train"], "AtoB")
    stage3.draw_histograms(tmp_path / "histograms.png", measures)
    axes = figures["histograms.png"].axes
    assert [axis.get_title() for axis in axes] == ["values of the condition", "values of the target", "ink"]
    for axis, half in zip(axes, (measures.counts[:3], measures.counts[3:])):
        assert [patch.get_label() for patch in axis.patches] == ["R", "G", "B"]
        for patch, counts in zip(axis.patches, half):
            wanted = counts / tf.reduce_sum(counts)
            tf.debugging.assert_near(tf.constant(patch.get_data().values.tolist()), wanted, atol=1e-6)
    assert not near(measures.counts[3] / 1e6, measures.counts[5] / 1e6), "the test could not tell"
    assert sum(bar.get_height() for bar in axes[2].patches) == 4


def test_colours_are_counted_by_hand(stage3):
    """Broken if two colours count as one, or one as two: at 16 levels a channel, 1 of 255 is no other."""
    picture = tf.constant([[[0, 0, 0], [255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255], [1, 1, 1]]])
    assert stage3.count_colours(tf.cast(picture, tf.float32) / 127.5 - 1.0) == 5.0
    ramp = tf.repeat(tf.linspace(-1.0, 1.0, 256)[tf.newaxis, :, tf.newaxis], 3, axis=-1)
    assert stage3.count_colours(ramp) == 16.0


def test_measures_are_means_over_all_pairs(stage3, tmp_path):
    """Broken if a split's mean or spread is that of its last pair, or of its pairs' own means.

    Targets black and white: mean 0, spread 1, and 1.5 colours where one has two of them.
    """
    paths = []
    for name, target in (("a", [0, 0]), ("b", [255, 255]), ("c", [0, 0]), ("d", [255, 255])):
        pixels = tf.constant([[255, 255, *target]], tf.uint8)
        paths.append(str(tmp_path / f"{name}.png"))
        tf.io.write_file(paths[-1], tf.io.encode_png(tf.repeat(pixels[..., tf.newaxis], 3, axis=-1)))
    measures = stage3.measure(paths, "AtoB")
    assert [float(v) for v in measures.mean] == pytest.approx([1, 1, 1, 0, 0, 0], abs=1e-5)
    assert [float(v) for v in measures.spread] == pytest.approx([0, 0, 0, 1, 1, 1], abs=1e-3)
    assert dict(measures.sizes) == {"2x1": 4} and measures.ink == [0.0] * 4
    assert [float(v) for v in measures.colours] == [1.0, 1.0]
    turned = stage3.measure(paths, "BtoA")
    assert [float(v) for v in turned.mean] == pytest.approx([0, 0, 0, 1, 1, 1], abs=1e-5)
    assert turned.ink == [1.0, 0.0, 1.0, 0.0], "of the condition, which is now the right half"


def test_the_table_tells_the_measures(stage3, few_pairs, capsys):
    """Broken if a number of stage 3's table stands in another half's or another channel's column."""
    paths = common.find_pairs(few_pairs)
    measured = {split: stage3.measure(files, "AtoB") for split, files in paths.items()}
    stage3.print_table(measured, {"train": 3, "val": 0}, "AtoB")
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["train", "4", "3", "256x256", "(4)"] in lines and ["val", "2", "0", "256x256", "(2)"] in lines
    for split, measures in measured.items():
        for half, start in (("condition", 0), ("target", 3)):
            (line,) = [line for line in lines if line[:2] == [split, half]]
            numbers = [*measures.mean[start : start + 3], *measures.spread[start : start + 3]]
            assert line[2:8] == [f"{float(number):.3f}" for number in numbers]
            assert line[8] == f"{float(measures.colours[start // 3]):.0f}"
            assert line[9:] == ([f"{sum(measures.ink) / len(measures.ink):.1%}"] if not start else [])


def test_main_colours_by_hand(stage5):
    """Broken if the classes' colours of label maps are not found, or JPEG's shades are taken for classes.

    Of 1000 pixels, 700 are red, 250 blue, 40 a red that JPEG has made a little darker, 9 green and 1
    white: one of a thousand is not enough.
    """
    counts = {(255, 0, 0): 700, (0, 0, 255): 250, (240, 10, 10): 40, (0, 255, 0): 9, (255, 255, 255): 1}
    pixels = [colour for colour, count in counts.items() for _ in range(count)]
    condition = tf.cast(tf.reshape(tf.constant(pixels), (1, 10, 100, 3)), tf.float32) / 127.5 - 1.0
    assert stage5.main_colours([condition]) == [["#ff0000", ""], ["#0000ff", ""], ["#00ff00", ""]]
    assert len(stage5.main_colours([condition, tf.zeros((1, 10, 100, 3))])) == 4, "over all conditions"


@pytest.mark.parametrize(
    "kind, how", [("labels", "conditions by nearest neighbour"), ("picture", "conditions by antialiased")]
)
def test_a_run_says_what_its_conditions_are(kind, how, stage5, few_pairs, tmp_path):
    """Broken if stage 6 is not told how to treat what it colours."""
    shutil.copytree(few_pairs, tmp_path / "mine")
    about = {"condition": kind}
    if kind == "labels":
        about |= {"colours": [["#000000", "line"], ["#ffffff", "paper"]], "classes": [1, 9]}
    (tmp_path / "mine" / "dataset.json").write_text(json.dumps(about))
    paths = common.find_pairs(tmp_path / "mine")["train"]
    found = stage5.describe_conditions(tmp_path / "mine", paths, "AtoB", (512, 256))
    assert found.pop("halves") == f"squashed to 512x256, {how}, targets antialiased"
    wanted = {"kind": kind, "line_width": None, "colours": about.get("colours", [])}
    assert found == wanted | ({"classes": [1, 9]} if kind == "labels" else {})


def test_html_tables_are_escaped(stage5):
    """Broken if a name in a table of the page acts on it, or a row is missing."""
    table = stage5.html_table([["a", "b"], ["<script>", 1], ["x & y", None]])
    assert "<script>" not in table and table.count("<tr>") == 3
    cells = [html.unescape(cell) for cell in re.findall("<t[dh]>([^<\n]*)", table)]
    assert cells == ["a", "b", "<script>", "1", "x & y", "None"]


def test_memory_of_a_training_by_hand(stage5, monkeypatch):
    """Broken if a training's memory is reckoned with other weights, pixels or batches than its own.

    64 filters, 256x256, one picture: 1 GB, 20 bytes for each of 57.2 million weights, and 35 for each
    filter and pixel: 1 + 1.144 + 0.147 = 2.291 GB.
    """

    def needed(batch_size=1, size=(256, 256), filters=64):
        monkeypatch.setattr(common, "free_memory", lambda: 0.0)
        args = argparse.Namespace(batch_size=batch_size, size=size, filters=filters)
        with pytest.raises(common.UserError, match="would take about") as told:
            stage5.refuse_too_large(args)
        return float(re.search(r"about ([0-9.]+) GB", str(told.value))[1])

    assert needed() == 2.3
    assert needed(filters=32) == 1.4  # 1 + 0.286 + 0.073
    assert needed(batch_size=10) == 3.6 == needed(size=(2560, 256))
    monkeypatch.setattr(common, "free_memory", lambda: 2.3e9)
    stage5.refuse_too_large(argparse.Namespace(batch_size=1, size=(256, 256), filters=64))


def test_stage_5_hands_its_flags_on(call_main, few_pairs, stage5, monkeypatch):
    """Broken if a flag of stage 5 does not reach the pairs or the networks."""
    taken, begun = [], []
    monkeypatch.setattr(common, "training_pairs", lambda paths, **options: taken.append((paths, options)))

    def train(model, run, batches, args, *, validation, steps_per_epoch, **rest):
        batches(first_step=4, last_step=6)
        begun.append((model, next(iter(validation)), steps_per_epoch))
        assert len(list(validation)) == 2
        raise common.UserError("far enough")

    monkeypatch.setattr(common, "train", train)
    flags = ["--loss", "l1", "--lambda-l1", 3, "--filters", 1, "--size", "512x256", "--batch-size", 2]
    flags += ["--augment", "course", "--direction", "BtoA", "--seed", 9]
    done = call_main("05_pix2pix_train.py", "--dataset", few_pairs, *flags)
    assert "far enough" in done.stderr, done.stderr
    ((paths, options),) = taken
    assert paths == common.find_pairs(few_pairs)["train"]
    assert options == {
        **{"first_step": 4, "last_step": 6, "batch_size": 2, "seed": 9, "direction": "BtoA"},
        **{"augment": "course", "size": (512, 256), "labels": False},
    }
    ((model, (condition, real), steps),) = begun
    assert (model.terms, model.lambda_l1, steps) == (["l1"], 3.0, 2)
    assert model.generator.encoder[0].conv.filters == model.discriminator.blocks[0].conv.filters == 1
    assert condition.shape == (1, 512, 256, 3)
    colour, sketch = (tf.reduce_max(tf.math.reduce_std(half, axis=-1)) for half in (condition, real))
    assert float(sketch) < 1e-3 < float(colour), "BtoA: from the colours to the sketch"
    optimizer = model.generator_optimizer
    assert float(optimizer.learning_rate) == pytest.approx(2e-4) and optimizer.beta_1 == 0.5


def test_samples_show_condition_generated_and_real(call_main, few_pairs, stage5, monkeypatch):
    """Broken if a column of the samples or of result.png is another picture than its title says."""
    grids = []

    def train(model, run, batches, args, *, draw, **rest):
        draw(run / "sample.png")
        raise common.UserError("far enough")

    monkeypatch.setattr(common, "train", train)
    monkeypatch.setattr(stage5, "generate", lambda generator, condition: -condition)
    monkeypatch.setattr(common, "save_grid", lambda path, rows, titles: grids.append((rows, titles)))
    done = call_main("05_pix2pix_train.py", "--dataset", few_pairs, "--filters", 1)
    assert "far enough" in done.stderr, done.stderr
    ((rows, titles),) = grids
    assert titles == ["sketch", "generated", "real"]
    for row, path in zip(rows, common.find_pairs(few_pairs)["val"], strict=True):
        condition, real = common.split_stack(common.read_stack(path, "AtoB"))
        for tile, wanted in zip(row, (condition, -condition, real), strict=True):
            assert near(tile, wanted, 1e-5)
