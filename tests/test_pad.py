"""Stage 6's page as a file: what it contains, and mistakes that keep it from being written."""

import base64
import gzip
import hashlib
import json
import re

import common

import pytest
import tensorflow as tf

SCRIPT = "06_sketch_pad.py"


@pytest.fixture
def make_runs(make_run, monkeypatch, tmp_path):
    """Makes untrained runs with these names, with what stage 5 notes about their conditions."""
    monkeypatch.chdir(tmp_path)

    def make(*names, size=(256, 256), filters=4, flags=(), **condition):
        for name in names:
            common.keras.utils.set_random_seed(len(list(tmp_path.iterdir())))
            network, more = common.UNet(filters), {"--size": size} | dict(flags)
            run = make_run(tmp_path / name, network, flags=more)
            options = json.loads((run / "options.json").read_text())
            options["data"]["condition"] |= condition
            (run / "options.json").write_text(json.dumps(options))
        return [tmp_path / name for name in names]

    return make


@pytest.fixture
def make_pad(make_runs, call_main, tmp_path):
    """Writes the page of such runs, and returns its path."""

    def make(*names, precision="int8", **options):
        flags = ["--out", tmp_path / f"{names[0]}.html", "--precision", precision]
        done = call_main(SCRIPT, "--no-browser", *flags, "--run", *make_runs(*names, **options))
        assert done.returncode == 0, done.stderr
        return flags[1]

    return make


def parts(page):
    """Returns the page's parts, as the browser unpacks them: script, runtime, wasm, networks."""
    found = re.findall('<script type="text/plain">(.*)</script>', page.read_text(encoding="utf-8"))
    found = [gzip.decompress(base64.b64decode(part)) for part in found]
    for n, parted in enumerate(found[3:], start=3):  # every second byte first, then the others
        file, half = bytearray(parted), (len(parted) + 1) // 2
        file[0::2], file[1::2] = parted[:half], parted[half:]
        found[n] = bytes(file)
    return found


def test_pinned():
    """Broken if the runtime for browsers is not byte for byte what `make web` fetches."""
    web = common.HERE / "web"
    sums = dict(line.split()[::-1] for line in (web / "SHA256SUMS").read_text().splitlines())
    files = {file.name: file.read_bytes() for file in web.glob("litert*")}
    assert len(files) == 3 and "Apache License" in (web / "LICENSE").read_text()
    assert {name: hashlib.sha256(data).hexdigest() for name, data in files.items()} == sums


def test_page(make_pad, few_pairs):
    """Broken if the page lacks a part, an example or a name."""
    page = make_pad("l1", "cgan")
    script, runtime, wasm, *models = parts(page)
    assert script.endswith((common.HERE / "web" / "worker.js").read_bytes())
    assert runtime.startswith(b"// This code") and wasm[:4] == b"\0asm" and len(models) == 2
    about = json.loads(re.search("const about = (.*); //", page.read_text(encoding="utf-8"))[1])
    assert [run["name"] for run in about["runs"]] == ["l1", "cgan"] and about["size"] == [256, 256]
    assert len(about["examples"]) == 2  # all that the dataset has
    condition = base64.b64decode(about["examples"][0][0].partition(",")[2])
    sketch, _ = common.decode_pair(common.find_pairs(few_pairs)["val"][0])
    assert bool(tf.reduce_all(tf.io.decode_png(condition) == sketch))


def test_precision(make_runs, call_main, stage6, monkeypatch):
    """Broken if a converted network is used though its picture differs from Keras'."""
    make_runs("run")
    for kind, status, words in [("int8", 0, "float16 weights"), ("float16", 2, "Keras' picture")]:
        monkeypatch.setitem(stage6.ALLOWED, kind, (-1.0, -1.0))
        done = call_main(SCRIPT, "--run", "run", "--no-browser", "--precision", kind)
        assert done.returncode == status and words in done.stdout + done.stderr


def test_mistakes(call_main, make_runs, stage6, tmp_path, monkeypatch):
    """Broken if a mistake is not reported in one line, or the page is not written or opened."""
    make_runs("run")
    make_runs("gone", flags={"--dataset": "gone"})
    make_runs("wide", size=(256, 512))
    make_runs("maps", kind="labels", colours=[["#000000", ""]])
    opened = []
    monkeypatch.setattr(stage6.webbrowser, "open", opened.append)
    monkeypatch.setenv("DISPLAY", ":0")
    wrong = {"none": "none: no trained run here", "wide": "--run wide: its size differs from run"}
    for run, words in (wrong | {"maps": "--run maps: its kind differs from run"}).items():
        done = call_main(SCRIPT, "--run", "run", run, "--out", "out")
        assert done.returncode == 2 and words in done.stderr and len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists() and not opened
    done = call_main(SCRIPT, "--run", "gone", "--out", "out")
    assert done.returncode == 0 and "no examples" in done.stderr
    assert opened == [(tmp_path / "out" / "pad.html").as_uri()]
    done = call_main(SCRIPT, "--run", "run", "--out", "out/mine.html", "--no-browser")
    assert done.returncode == 0 and len(opened) == 1 and (tmp_path / "out" / "mine.html").exists()
