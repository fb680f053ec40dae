"""Stage 6's page as a file: what is in it, and the mistakes that are told before it is written."""

import argparse
import base64
import gzip
import hashlib
import importlib
import json
import re

import common

import pytest
import tensorflow as tf

SCRIPT = "06_sketch_pad.py"
stage6 = importlib.import_module(SCRIPT.removesuffix(".py"))


@pytest.fixture
def make_runs(make_run, monkeypatch, tmp_path):
    """Makes untrained runs of these names, with what stage 5 says of their conditions."""
    monkeypatch.chdir(tmp_path)

    def make(*names, filters=4, size=(256, 256), flags=None, **condition):
        for name in names:
            common.keras.utils.set_random_seed(len(list(tmp_path.iterdir())))
            flags = {"--size": size, "--loss": "l1"} | (flags or {})
            run = make_run(tmp_path / name, common.UNet(filters), flags=flags)
            options = json.loads((run / "options.json").read_text())
            options["data"]["condition"] |= condition
            (run / "options.json").write_text(json.dumps(options))
        return [tmp_path / name for name in names]

    return make


@pytest.fixture
def make_pad(make_runs, tmp_path):
    """Writes the page of such runs, and returns it."""

    def make(*names, precision="int8", **options):
        out, run = tmp_path / f"{names[0]}.html", make_runs(*names, **options)
        args = argparse.Namespace(run=run, out=out, precision=precision, best=False)
        return stage6.write_page(args)

    return make


def parts(page):
    """Returns the page's parts, as the browser unpacks them: script, runtime, wasm, networks."""
    found = re.findall('<script type="text/plain">(.*)</script>', page.read_text(encoding="utf-8"))
    return [gzip.decompress(base64.b64decode(part)) for part in found]


def test_pinned():
    """Broken if the runtime for browsers is not byte for byte what `make web` fetches."""
    web = common.HERE / "web"
    sums = dict(line.split()[::-1] for line in (web / "SHA256SUMS").read_text().splitlines())
    assert {file.name for file in web.glob("litert*")} == sums.keys() and len(sums) == 3
    for name, wanted in sums.items():
        assert hashlib.sha256((web / name).read_bytes()).hexdigest() == wanted, name
    assert "Apache License" in (web / "LICENSE").read_text()


def test_page(make_pad, few_pairs):
    """Broken if the page lacks a part, an example or a name."""
    page = make_pad("l1", "cgan")
    script, runtime, wasm, *models = parts(page)
    assert script.endswith((common.HERE / "web" / "worker.js").read_bytes())
    assert runtime.startswith(b"// This code") and wasm[:4] == b"\0asm" and len(models) == 2
    about = re.search("const about = (.*); //", page.read_text(encoding="utf-8"))
    about = json.loads(about.group(1))
    assert [run["name"] for run in about["runs"]] == ["l1", "cgan"] and about["size"] == [256, 256]
    assert len(about["examples"]) == 2  # as many as the dataset has
    condition = base64.b64decode(about["examples"][0]["condition"].partition(",")[2])
    sketch, _ = common.decode_pair(common.find_pairs(few_pairs)["val"][0])
    assert bool(tf.reduce_all(tf.io.decode_png(condition) == sketch))


def test_precision(make_pad, monkeypatch, capsys):
    """Broken if a network is taken that draws another picture than Keras."""
    monkeypatch.setitem(stage6.ALLOWED, "int8", (0.0, 0.0))
    make_pad("run")
    assert "float16 weights" in capsys.readouterr().out
    monkeypatch.setitem(stage6.ALLOWED, "float16", (0.0, -1.0))
    with pytest.raises(common.UserError, match="draws another picture"):
        make_pad("other", precision="float16")


def test_mistakes(call_main, make_runs, tmp_path, monkeypatch):
    """Broken if a mistake is not told in one line, or leaves half a page, or a server is needed."""
    make_runs("run", flags={"--dataset": "gone"})
    make_runs("wide", size=(256, 512))
    make_runs("maps", kind="labels", colours=[["#000000", ""]])
    opened = []
    monkeypatch.setattr(stage6.webbrowser, "open", opened.append)
    monkeypatch.setenv("DISPLAY", ":0")
    for runs, words in {
        ("none",): "none: no trained run here",
        ("run", "wide"): "--run wide: its size differs from run",
        ("run", "maps"): "--run maps: its kind differs from run",
    }.items():
        done = call_main(SCRIPT, "--run", *runs, "--out", "out")
        assert done.returncode == 2 and words in done.stderr and len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists() and not opened
    done = call_main(SCRIPT, "--run", "run", "--out", "out")
    assert done.returncode == 0 and "no examples" in done.stderr
    assert opened == [(tmp_path / "out" / "pad.html").as_uri()]
    done = call_main(SCRIPT, "--run", "run", "--out", "out/mine.html", "--no-browser")
    assert done.returncode == 0 and len(opened) == 1 and (tmp_path / "out" / "mine.html").exists()
