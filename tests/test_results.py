"""Stage 9: a page of one run, or of several side by side."""

import html
import re
import shutil
import urllib.parse
from pathlib import Path

import common

import keras
import pytest
import tensorflow as tf
from conftest import as_floats, change, difference, same
from PIL import Image

SCRIPT = "09_results.py"
STRANGE = ["100%# & 'so'.png", "그림.png"]


@pytest.fixture
def trained(make_run, few_pairs, tmp_path):
    """Makes runs that look trained, with different weights, on pairs with strange names."""
    shutil.copytree(few_pairs, tmp_path / "pairs")
    for file, name in zip(sorted((tmp_path / "pairs" / "val").iterdir()), STRANGE, strict=True):
        file.rename(file.with_name(name))

    def make(name, network=common.UNet, **flags):
        keras.utils.set_random_seed(len(name))
        flags = {"--dataset": str(tmp_path / "pairs")} | flags
        run = make_run(tmp_path / name, network(2), flags=flags)
        pairs = common.find_pairs(tmp_path / "pairs")
        for part, value in common.fingerprint(pairs["train"] + pairs["val"]).items():
            change(run, "data", part, value)
        return run

    return make


def test_page_of_two_runs(trained, call_main, tmp_path, grids):
    """Broken if a picture, score or name on the page belongs to another run or another pair.

    A pair's caption has the L1 of each run, and the worst pair of the first run comes first.
    """
    runs = [trained("a <b>"), trained("other", common.EncoderDecoder, **{"--loss": "l1"})]
    (tmp_path / "page" / "shown" / "earlier").mkdir(parents=True)
    done = call_main(SCRIPT, *runs, "--out", "page")
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert not (tmp_path / "page" / "shown" / "earlier").exists()
    page = (tmp_path / "page" / "index.html").read_text()
    assert "<b>" not in page and "http" not in page and "<script" not in page
    text = html.unescape(page)
    names = ["a <b>: loss l1+cgan, generator unet", "other: loss l1, generator encoder-decoder"]
    assert [text.count(name) for name in names] == [6, 6]  # in 3 sections, a column and 2 images
    sources = [urllib.parse.unquote(name) for name in re.findall('<img src="([^"]+)"', text)]
    assert sources[:2] == ["shown/run_1.png", "shown/run_2.png"] and len(sources) == 2 + 2 * 4
    assert all((tmp_path / "page" / name).exists() for name in sources)

    generators, columns = [common.load_generator(run)[0] for run in runs], {}
    captions = dict(re.findall(r'"name">(.*?): L1 (.*?)</p>', text))
    assert set(captions) == set(STRANGE)
    for row, (name, caption) in enumerate(captions.items()):
        pair = common.read_stack(str(tmp_path / "pairs" / "val" / name), "AtoB")[tf.newaxis]
        condition, real = common.split_stack(pair)
        drawn = [condition, *(common.generate(network, condition) for network in generators), real]
        for kind, picture in zip(("condition", "run_1", "run_2", "real"), drawn):
            file = f"shown/{kind}/{name}.png"
            assert sources[2 + 4 * row :].index(file) < 4, "a picture is in another pair's row"
            assert difference(as_floats(tmp_path / "page" / file), picture) < 1 / 127
            columns.setdefault(kind, []).append(float(tf.reduce_mean(tf.abs(picture - real))))
        wanted = [f"{columns[kind][row]:.4f}" for kind in ("run_1", "run_2")]
        assert caption.split(", ") == wanted
    assert columns["run_1"] == sorted(columns["run_1"], reverse=True)
    means = {kind: f"{sum(column) / 2:.4f}" for kind, column in columns.items()}
    assert f"<td>the condition itself<td>{means['condition']}" in text
    assert f"<td>{names[0]}<td>{means['run_1']}" in text

    ((_, rows, kind),) = grids
    titles = [title.replace("\n", ", ").split(", L1 ")[0] for title in kind["titles"]]
    assert titles == ["sketch", *(name.replace(":", ",") for name in names), "real"]
    assert f"L1 {columns['run_2'][0] / 2 + columns['run_2'][1] / 2:.3f}" in kind["titles"][2]
    assert [len(row) for row in rows] == [4, 4]
    assert difference(rows[0][1], rows[0][2]) > 0.01, "the runs look alike"


def test_split_best_and_animation(trained, call_main, tmp_path):
    """Broken if --split, --best or --animate shows the wrong pairs, weights or epochs.

    Runs of different data can be compared if --dataset names the pairs.
    """
    run = trained("run", **{"--direction": "BtoA"})  # on pairs of AtoB, when it was trained
    change(run, "data", "condition", {"kind": "sketch", "exchanged": True})
    (run / "samples").mkdir()
    for epoch, colour in ((1, "red"), (2, "blue"), (10, "white")):
        Image.new("RGB", (64, 64), colour).save(run / "samples" / f"epoch_{epoch:04d}.png")
    black = common.UNet(2)
    black(tf.zeros((1, 256, 256, 3)), training=False)
    black.to_picture.kernel.assign(0.0 * black.to_picture.kernel)
    black.to_picture.bias.assign([-9.0] * 3)
    black.save_weights(run / "best.weights.h5")
    change(run, "data", "files", "y")
    (run / "samples" / "epoch_0001_copy.png").touch()
    shutil.copytree(run, tmp_path / "other")
    (tmp_path / "pairs" / "dataset.json").write_text('{"direction": "BtoA"}')
    flags = ["--split", "train", "--best", "--animate", "--dataset", tmp_path / "pairs"]
    done = call_main(SCRIPT, run, tmp_path / "other", *flags)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(": made with other pairs, maybe trained on these; shown AtoB\n") == 2
    folder = tmp_path / "runs" / "09_results"
    path = common.find_pairs(tmp_path / "pairs")["train"][0]
    sheet = common.read_picture(folder / "shown" / "condition" / f"{Path(path).name}.png")
    assert same(sheet, common.decode_pair(path)[0]), "not the other half than these pairs have"
    pictures = list((folder / "shown").glob("run_?/*.png"))
    assert len(pictures) == 2 * 4
    assert all(float(tf.reduce_max(as_floats(path))) < -0.99 for path in pictures)
    with Image.open(folder / "samples.webp") as image:
        frames = []
        for number in range(image.n_frames):
            image.seek(number)
            frames.append((*image.convert("RGB").getpixel((60, 60)), image.info["duration"]))
    wanted = [(255, 0, 0, 400), (0, 0, 255, 400), (255, 255, 255, 2000)]
    assert frames == [pytest.approx(frame, abs=9) for frame in wanted]


def test_runs_of_other_data_are_refused(trained, refused, tmp_path):
    """Broken if stage 9 accepts runs that cannot be compared, or a damaged run."""
    first, run = trained("first"), trained("second")
    text = (run / "options.json").read_text()
    about = '{"condition": "sketch", "colours": [["#ff0000", "car"]]}'
    (tmp_path / "pairs" / "dataset.json").write_text(about)
    other = {"kind": "sketch", "colours": [["#ff0001", "car"]]}
    mistakes = {
        "pairs: its palette differs": lambda: change(run, "data", "condition", other),
        "pairs: its --size differs": lambda: change(run, "flags", "--size", [512, 256]),
        "pairs: its --direction differs": lambda: change(run, "flags", "--direction", "BtoA"),
        "pairs: its kind differs": lambda: change(run, "data", "condition", {"kind": "labels"}),
        "options.json: damaged": lambda: (run / "options.json").write_text("{"),
        "generator.weights.h5: missing": (run / "generator.weights.h5").unlink,
    }
    for words, damage in mistakes.items():
        damage()
        (line,) = refused(SCRIPT, first, run, "--out", "page", words=words)
        assert "second" in line
        (run / "options.json").write_text(text)
    path = Path(common.find_pairs(tmp_path / "pairs")["val"][0])
    path.write_bytes(path.read_bytes()[:-99])
    refused(SCRIPT, first, words=f"cannot be used: {path} (damaged", notes=("Warning: ",))
    path.unlink()
    shutil.copytree(tmp_path / "pairs" / "train", tmp_path / "pairs" / "train2")
    refused(SCRIPT, first, "--split", "train", words="train2, val: keep one", notes=("Warning: ",))


def test_unfinished_run_can_be_used(trained, capsys):
    """Broken if an unfinished run cannot be loaded, or is loaded without a warning."""
    run = trained("run")
    keras.config.set_dtype_policy("mixed_bfloat16")  # as an earlier training in a notebook
    assert common.load_generator(run)[0].compute_dtype == "float32"
    assert not capsys.readouterr().err
    change(run, "flags", "--epochs", 10)
    common.load_generator(run)
    assert "is not finished: 1 of 10 epochs" in capsys.readouterr().err
