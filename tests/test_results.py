"""What stage 5 says of a run: scores, their do-nothing line, runs compared, the page of results."""

import html
import json
import math
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import common

import pytest
import tensorflow as tf

HERE = Path(__file__).parent.parent
SCRIPT = "05_pix2pix_train.py"
NAMES = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)


def flat(value):
    """A picture of one gray, from 0 to 255, as (1, 256, 256, 3) in [-1, 1]."""
    return tf.fill((1, 256, 256, 3), value / 127.5 - 1.0)


def test_scores_by_hand(stage5):
    """Broken if a score is computed on another range than its formula was made for.

    Two flat grays, 121 and 134 of 255. L1 on [-1, 1]: 13 / 127.5 = 0.1020. PSNR:
    20 log10(255 / 13) = 25.85 dB. SSIM on [0, 1]: flat pictures have no variance, so only the
    luminance term is left, (2ab + 0.01^2) / (a^2 + b^2 + 0.01^2) with a = 0.4745 and
    b = 0.5255: 0.9948. (On [-1, 1], a = -0.051 and b = 0.051, it would be -0.86.)
    """
    scores = stage5.scores(flat(121), flat(134))
    assert float(scores["l1"]) == pytest.approx(13 / 127.5, rel=1e-4)
    assert float(scores["psnr"]) == pytest.approx(20 * math.log10(255 / 13), rel=1e-4)
    assert float(scores["ssim"]) == pytest.approx(0.9948, abs=1e-3)  # float32 finds some variance
    equal = stage5.scores(flat(7), flat(7))
    assert float(equal["l1"]) == 0.0 and float(equal["ssim"]) == pytest.approx(1.0)


def test_test_step_scores_the_generated_picture(stage5, monkeypatch):
    """Broken if validation scores anything but the generated picture against the real one."""
    model = stage5.Pix2Pix(filters=1)
    monkeypatch.setattr(stage5, "generate", lambda generator, condition: condition * 0.5)
    scores = model.test_step((flat(255), flat(0)))
    assert float(scores["l1"]) == pytest.approx(1.5)  # half of white, 0.5, to black, -1


class SmallUNet(common.UNet):
    """The U-Net with a thirty-second of its filters: quick to make and to run."""

    def __init__(self, filters=64, **kwargs):
        super().__init__(filters // 32, **kwargs)


class SmallPatchGAN(common.PatchGAN):
    """The PatchGAN with a thirty-second of its filters."""

    def __init__(self, filters=64, **kwargs):
        super().__init__(filters // 32, **kwargs)


@pytest.fixture
def small(stage5, monkeypatch):
    """Has stage 5 train, and load, small networks."""
    monkeypatch.setattr(common, "UNet", SmallUNet)
    monkeypatch.setattr(stage5, "UNet", SmallUNet)
    monkeypatch.setattr(stage5, "PatchGAN", SmallPatchGAN)
    return stage5


@pytest.fixture
def trained(small, call_main, few_pairs, tmp_path):
    """Trains a run of one step; returns its folder and what was printed."""

    def train(name, *flags):
        once = ["--dataset", few_pairs, "--steps-per-epoch", 1, "--epochs", 1]
        done = call_main(SCRIPT, *once, "--out", name, *flags)
        assert done.returncode == 0, done.stderr
        return tmp_path / name, done.stdout

    return train


@pytest.mark.slow
def test_what_doing_nothing_scores(trained, stage5, few_pairs, monkeypatch):
    """Broken if the scores of the uncoloured condition are not the condition's, or are not shown."""
    drawn = []
    monkeypatch.setattr(common, "save_figure", lambda figure, path: drawn.append((path.name, figure)))
    run, printed = trained("run")
    _, (row,) = common.read_run(run)
    pairs = [common.decode_pair(path) for path in common.find_pairs(few_pairs)["val"]]
    halves = [[tf.cast(half, tf.float32)[tf.newaxis] / 127.5 - 1.0 for half in pair] for pair in pairs]
    l1 = [float(tf.reduce_mean(tf.abs(left - right))) for left, right in halves]
    assert row["condition_l1"] == pytest.approx(sum(l1) / len(l1), abs=1e-5)
    assert f"L1 {row['val_l1']:.4f} ({row['condition_l1']:.4f})" in printed
    for score in ("l1", "psnr", "ssim"):
        assert row[f"condition_{score}"] != row[f"val_{score}"]
    *_, curves = [figure for name, figure in drawn if name == "losses.png"]
    panels = {axis.get_title(): axis for axis in curves.axes if axis.get_title()}
    for score in ("l1", "psnr", "ssim"):
        level = panels[f"{score.upper()}, validation"].lines[-1]
        assert level.get_linestyle() == ":" and set(level.get_ydata()) == {row[f"condition_{score}"]}
    assert len(panels["L1, training"].lines) == 1


@pytest.fixture
def finished(small, make_run, few_pairs, tmp_path):
    """Makes a run of one epoch without training, with scores of its own; returns its folder."""

    def make(name, loss, l1, **flags):
        common.keras.utils.set_random_seed(round(100 * l1))
        usual = {"--loss": loss, "--size": "256x256", "--filters": 64, "--dataset": str(few_pairs)} | flags
        run = make_run(tmp_path / name, SmallUNet(), flags=usual)
        (run / "metrics.csv").write_text(f"epoch,val_l1,val_psnr,val_ssim\n1,{l1},10.0,{l1 + 0.5}\n")
        options = json.loads((run / "options.json").read_text())
        options["data"] |= {"contents of the data": "x", "train": 4, "val": 2}
        (run / "options.json").write_text(json.dumps(options))
        return run

    return make


def test_compare(finished, call_main, few_pairs, monkeypatch):
    """Broken if a column shows another run's pictures than its title says, or other pairs."""
    runs = [finished("first", "l1", 0.25), finished("second", "cgan", 0.375, **{"--norm": "instance"})]
    drawn = {}

    def save_grid(path, rows, titles):
        drawn.update(path=path, rows=rows, titles=titles)

    monkeypatch.setattr(common, "save_grid", save_grid)
    done = call_main(SCRIPT, "--compare", *runs)
    assert done.returncode == 0, done.stderr
    assert drawn["path"] == Path("runs/05_compare/compare.png")
    assert [title.split("\n")[0] for title in drawn["titles"]] == [
        *("condition", "l1, norm batch", "cgan, norm instance", "real")
    ]
    for title, l1 in zip(drawn["titles"][1:], (0.25, 0.375)):
        assert f"L1 {l1:.3f}" in title and f"SSIM {l1 + 0.5:.3f}" in title
    left, right = common.decode_pair(common.find_pairs(few_pairs)["val"][0])
    wanted = [tf.cast(half, tf.float32) / 127.5 - 1.0 for half in (left, right)]
    wanted[1:1] = [common.generate(common.load_generator(run)[0], wanted[0][tf.newaxis])[0] for run in runs]
    for picture, tile in zip(wanted, drawn["rows"][0], strict=True):
        assert float(tf.reduce_max(tf.abs(picture - tile))) < 1e-5
    assert float(tf.reduce_max(tf.abs(wanted[1] - wanted[2]))) > 0.01, "the test could not tell them apart"
    assert len(drawn["rows"]) == 2


def test_compare_refuses(finished, call_main, tmp_path):
    """Broken if runs that say nothing about each other are drawn side by side."""
    run = finished("run", "l1", 0.25)
    options = json.loads((run / "options.json").read_text())
    other, turned, unfinished = (tmp_path / name for name in ("other", "turned", "unfinished"))
    for folder in (other, turned, unfinished):
        shutil.copytree(run, folder)
    options["data"]["contents of the data"] = "y"
    (other / "options.json").write_text(json.dumps(options))
    options["data"]["contents of the data"] = "x"
    options["flags"]["--direction"] = "BtoA"
    (turned / "options.json").write_text(json.dumps(options))
    options["flags"] |= {"--epochs": 10, "--direction": "AtoB"}
    (unfinished / "options.json").write_text(json.dumps(options))
    damaged, lacking = tmp_path / "damaged", tmp_path / "lacking"
    for folder, table in ((damaged, "epoch,val_l1\n1,x\n"), (lacking, "epoch,val_l1\n1,0.5\n")):
        shutil.copytree(run, folder)
        (folder / "metrics.csv").write_text(table)
    stage1 = tmp_path / "stage1"
    stage1.mkdir()
    options["data"]["script"] = "01_gan_mnist.py"
    (stage1 / "options.json").write_text(json.dumps(options))
    mistakes = {
        "other: was trained on other data than": other,
        "turned: was trained on other data than": turned,
        "has 1 of 10 epochs": unfinished,
        "a run of 01_gan_mnist.py": stage1,
        "no trained run there": tmp_path / "nowhere",
        "damaged: options.json or metrics.csv is damaged": damaged,
        "lacking: options.json or metrics.csv is damaged": lacking,
    }
    for words, wrong in mistakes.items():
        done = call_main(SCRIPT, "--compare", run, wrong)
        assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
        assert words in done.stderr and str(wrong) in done.stderr
    assert not (tmp_path / "runs").exists()


def test_an_unfinished_run_can_be_used(finished, capsys):
    """Broken if a run that goes on, or was killed, cannot be looked at, or is taken for a finished one."""
    run = finished("run", "l1", 0.25)
    common.load_generator(run)
    assert not capsys.readouterr().err
    options = json.loads((run / "options.json").read_text())
    options["flags"]["--epochs"] = 10
    (run / "options.json").write_text(json.dumps(options))
    common.load_generator(run)
    assert "is not finished: 1 of 10 epochs" in capsys.readouterr().err


@pytest.mark.slow
def test_a_killed_run_can_be_used(few_pairs, run_script, tmp_path):
    """Broken if kill -9 in the third epoch leaves no weights that stage 6 can colour a file with."""
    flags = ["--dataset", few_pairs, "--steps-per-epoch", "1", "--epochs", "50", "--out", "run"]
    command = [sys.executable, HERE / SCRIPT, *flags]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None and not (tmp_path / "run/saved/step_00000002").exists():
            time.sleep(0.05)
        process.kill()
    sketch = common.find_pairs(few_pairs)["val"][0]
    done = run_script("06_sketch_pad.py", "--run", "run", "--sketch", sketch, "--out", "coloured")
    assert done.returncode == 0, done.stderr
    assert re.search(r"is not finished: \d+ of 50 epochs", done.stderr)
    assert (tmp_path / "coloured" / Path(sketch).name).exists()


STRANGE = ["<b>bold & 'so'.png", "100%#?.png", "그림.png", "a.png", "a.jpg"]
if os.name == "nt":  # which takes none of <>?
    STRANGE[:2] = ["bold & 'so'.png", "100%#.png"]


@pytest.fixture
def page(small, few_pairs, tmp_path):
    """Writes the page of an untrained run on pairs with strange names; returns its folder."""
    source = common.find_pairs(few_pairs)["train"]
    paths = []
    for number, name in enumerate(STRANGE):
        paths.append(str(tmp_path / "pairs" / name))
        picture = tf.roll(common.decode_picture(source[number % len(source)]), number, axis=0)
        encode = tf.io.encode_jpeg if name.endswith("jpg") else tf.io.encode_png
        (tmp_path / "pairs").mkdir(exist_ok=True)
        tf.io.write_file(paths[-1], encode(picture))
    run = tmp_path / "a <run>"
    run.mkdir()
    flags = {"--dataset": "<mine>", "--direction": "AtoB", "--epochs": 1}
    options = {"flags": flags, "data": {"script": SCRIPT}, "versions": {"python": "3"}}
    (run / "options.json").write_text(json.dumps(options))
    names = ["val_l1", "val_psnr", "val_ssim", "condition_l1", "condition_psnr", "condition_ssim"]
    (run / "metrics.csv").write_text(",".join(["epoch", *names]) + "\n1,0.25,10.0,0.5,0.5,9.0,0.4\n")
    tf.io.write_file(str(run / "losses.png"), tf.io.encode_png(tf.zeros((8, 8, 3), tf.uint8)))
    (tmp_path / "01_gan_mnist").mkdir()
    (tmp_path / "01_gan_mnist" / "result.png").write_bytes(b"")
    common.keras.utils.set_random_seed(0)
    small.write_page(run, small.Pix2Pix(), paths, "AtoB")
    return run


def test_page(page, stage5):
    """Broken if a pair is missing, its pictures or its L1 are another's, or a name is not escaped."""
    text = (page / "index.html").read_text()
    assert "<b>bold" not in text and "&lt;mine&gt;" in text and "a &lt;run&gt;" in text
    assert '<a href="../01_gan_mnist/result.png">' in text and "02_cgan" not in text
    assert "<td>the condition itself<td>0.5000" in text and "<td>1<td>0.2500" in text
    captions = [html.unescape(line) for line in re.findall("<figcaption>(.*?)</figcaption>", text)]
    assert {caption.split(": L1")[0] for caption in captions} == set(STRANGE), "a.png and a.jpg are two pairs"
    l1 = [float(caption.split("L1 ")[1]) for caption in captions]
    assert l1 == sorted(l1, reverse=True), "the worst is not the first"
    for caption in captions:
        name = caption.split(": L1")[0]
        folders = ("generated", "real")
        files = [str(page / "validation" / folder / f"{name}.png") for folder in folders]
        pictures = [tf.cast(common.decode_picture(file), tf.float32) / 127.5 - 1.0 for file in files]
        measured = float(tf.reduce_mean(tf.abs(pictures[0] - pictures[1])))
        assert measured == pytest.approx(float(caption.split("L1 ")[1]), abs=0.003)
    assert "script" not in re.sub(r"<td>script<td>[^\n]*", "", text) and "http" not in text


@pytest.mark.skipif(BROWSER is None, reason=f"no browser: none of {', '.join(NAMES)} is installed")
@pytest.mark.parametrize("width", [500, 1600])  # 500 is the narrowest window that Chromium makes
def test_page_in_a_browser(page, width, tmp_path):
    """Broken if a picture of the page does not load, or the page is wider than its window."""
    look = """<script>
      addEventListener("load", () => {
        const loaded = [...document.images].map(image => image.naturalWidth > 0 ? 1 : 0)
        document.title = `${loaded.join("")} ${document.body.scrollWidth}`
      })
    </script>"""
    text = (page / "index.html").read_text().replace(' loading="lazy"', "")  # to have all before "load"
    watched = page / "watched.html"
    watched.write_text(text + look)
    flags = ["--headless", "--disable-gpu", f"--user-data-dir={tmp_path / 'browser'}", "--no-first-run"]
    flags += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    flags += ["--no-sandbox"] if os.geteuid() == 0 else []
    flags += [f"--window-size={width},900", "--dump-dom"]
    command = [BROWSER, *flags, watched.absolute().as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    loaded, page_width = re.search("<title>(.*?)</title>", dom)[1].split()
    assert loaded == "1" * (1 + 3 * len(STRANGE))
    assert int(page_width) <= width
