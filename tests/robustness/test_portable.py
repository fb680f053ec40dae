"""The scripts on other machines: without what Windows lacks, on a GPU, under other versions.

What cannot be had here is played: see like_windows.py; a GPU is one in name only.
"""

import ast
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path, PurePosixPath, PureWindowsPath
from types import SimpleNamespace

import common

import keras
import pytest
import tensorflow as tf

HERE = Path(__file__).parent.parent.parent
TRAINERS = ["01_gan_mnist.py", "02_cgan_mnist.py", "05_pix2pix_train.py"]


def like_windows(folder, script, *flags):
    """Runs a script as if on Windows, with a console that knows no Korean; returns what it printed."""
    command = [sys.executable, "-X", "warn_default_encoding", HERE / "tests" / "like_windows.py"]
    done = subprocess.run(
        [*command, HERE / script, *map(str, flags)],
        cwd=folder,
        env=os.environ | {"PYTHONIOENCODING": "cp1252", "CUDA_VISIBLE_DEVICES": "-1"},
        capture_output=True,
        encoding="cp1252",
        timeout=300,
        check=False,
    )
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.linux
def test_digits_without_what_windows_lacks(tmp_path):
    """Broken if a training on Windows ends at an import, a signal, a lock, a flush, a rename or a name."""
    flags = ["--steps-per-epoch", 2, "--out", "그림"]
    assert "\\uadf8\\ub9bc" in like_windows(tmp_path, "01_gan_mnist.py", *flags, "--epochs", 1)
    assert "goes on after step 2" in like_windows(tmp_path, "01_gan_mnist.py", *flags, "--epochs", 2)
    words = like_windows(tmp_path, "01_gan_mnist.py", *flags, "--epochs", 1, "--fresh")
    assert "Starting over" in words
    for run, checkpoints in (
        ("그림", {"step_00000000", "step_00000002"}),
        ("그림.1", {"step_00000002", "step_00000004"}),
    ):
        assert {path.name for path in (tmp_path / run / "saved").iterdir()} == checkpoints
    lines = (tmp_path / "그림.1" / "losses.csv").read_bytes().split(b"\n")
    assert len(lines) == 4 and not any(b"\r" in line for line in lines)


@pytest.mark.linux
@pytest.mark.slow
def test_pairs_without_what_windows_lacks(few_pairs, tmp_path):
    """Broken if stages 5 to 8 need what Windows lacks: trained, exported, a file coloured, a set joined."""
    flags = ["--dataset", few_pairs, "--steps-per-epoch", 2, "--out", "run"]
    like_windows(tmp_path, "05_pix2pix_train.py", *flags, "--epochs", 1)
    assert "goes on after step 2" in like_windows(tmp_path, "05_pix2pix_train.py", *flags, "--epochs", 2)
    assert (tmp_path / "run" / "index.html").exists()
    like_windows(tmp_path, "08_export.py", "--run", "run", "--out", "exported")
    like_windows(tmp_path, "08_export.py", "--run", "run", "--out", "exported", "--force")
    assert (tmp_path / "exported" / "generator.tflite").exists()
    drawing = tmp_path / "그림.png"
    shutil.copy(next((few_pairs / "val").iterdir()), drawing)
    like_windows(tmp_path, "06_sketch_pad.py", "--run", "run", "--colour", drawing, "--pairs", "--out", "out")
    assert len(list((tmp_path / "out").iterdir())) == 1
    train = few_pairs / "train"
    like_windows(tmp_path, "07_get_pairs.py", "--pair", train, train, "--val-share", 0.5, "--out", "set")
    assert {path.name for path in tmp_path.iterdir()} >= {"set"}
    assert not list(tmp_path.glob(".new*")), "the lock's folder is left behind"


@pytest.mark.slow
@pytest.mark.linux
def test_lock_of_windows(tmp_path):
    """Broken if two processes train in one folder on Windows, or a lock that was given up holds."""
    code = "import common, pathlib, sys; common.lock(pathlib.Path(sys.argv[1]))"
    script = tmp_path / "hold.py"
    script.write_text(f"import sys; sys.path.insert(0, {str(HERE)!r}); {code}", encoding="utf-8")
    file = common.lock(tmp_path)
    with pytest.raises(AssertionError, match="another process is at work in it"):
        like_windows(tmp_path, script, tmp_path)
    os.close(file)
    like_windows(tmp_path, script, tmp_path)


def test_patient_renaming(tmp_path, monkeypatch):
    """Broken if a virus scanner that has a new file open for a moment ends a training on Windows."""
    refusals = [PermissionError(), PermissionError()]
    replace = Path.replace

    def refusing(path, new_path):
        if refusals:
            raise refusals.pop()
        return replace(path, new_path)

    (tmp_path / "new").touch()
    monkeypatch.setattr(Path, "replace", refusing)
    monkeypatch.setattr(common, "WINDOWS", True)
    common.rename(tmp_path / "new", tmp_path / "old")
    assert (tmp_path / "old").exists() and not refusals
    refusals += [PermissionError()] * 1000
    with pytest.raises(PermissionError):
        common.rename(tmp_path / "old", tmp_path / "new", seconds=0.1)


def opens_text(call):
    """Whether a call of the syntax tree reads or writes a text file."""
    function = ast.unparse(call.func).rpartition(".")
    if function[2] in {"read_text", "write_text", "TemporaryFile"}:
        return True
    modes = call.args[0 if function[0] else 1 :][:1]  # path.open(mode), open(path, mode)
    mode = modes[0].value if modes and isinstance(modes[0], ast.Constant) else "r" * (not modes)
    return function[2] == "open" and re.fullmatch("[rwax+t]+", str(mode)) is not None


def test_encodings_are_named():
    """Broken if a text file is read or written in the console's encoding, which differs by country."""
    for path in [*HERE.glob("*.py"), *HERE.glob("benchmarks/*.py")]:
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call) and opens_text(call):
                assert "encoding" in {word.arg for word in call.keywords}, f"{path.name}:{call.lineno}"


@pytest.mark.parametrize(
    "name", ["..\\x", "a\\..\\..\\x", "C:x", "C:\\x", "C:/x", "\\x", "\\\\server\\share\\x"]
)
def test_paths_that_lead_outside_on_windows(name, stage7, tmp_path):
    """Broken if an archive can write outside of its folder where \\ and C: mean something."""
    path, inside = PureWindowsPath(r"D:\data", PurePosixPath(name)), PureWindowsPath(r"D:\data")
    assert not path.is_relative_to(inside) or ".." in path.parts, "harmless"
    member = stage7.tarfile.TarInfo(name)
    with pytest.raises(common.UserError, match="leads outside"):
        stage7.unpack_member(None, member, tmp_path)


@pytest.mark.parametrize("script", TRAINERS)
def test_device_line(script, few_pairs, call_main, monkeypatch):
    """Broken if the first line of a training does not say what it computes on."""

    def refuse(*args):
        raise common.UserError("far enough")

    monkeypatch.setattr(common, "open_run", refuse)
    done = call_main(script, *(["--dataset", few_pairs] if script[1] == "5" else []))
    assert re.fullmatch(r"on \d+ cores? of \S.*\n", done.stdout) and "far enough" in done.stderr


@pytest.fixture
def gpu(monkeypatch):
    """A GPU that is there in name only."""
    device = SimpleNamespace(name="/physical_device:GPU:0", device_type="GPU")
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind: [device] if kind == "GPU" else [])
    details = {"device_name": "NVIDIA A100-SXM4-40GB", "compute_capability": (8, 0)}
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda device: details)


def test_gpu_is_left_alone(gpu, monkeypatch):
    """Broken if what helps a processor is done to a GPU: determinism, XLA, a trial of its precision."""

    def refuse(*args, **options):
        raise AssertionError

    for name in ("warn_of_slow_precision", "keep_memory"):
        monkeypatch.setattr(common, name, refuse)
    monkeypatch.setattr(tf.config.experimental, "enable_op_determinism", refuse)
    monkeypatch.setattr(tf, "function", refuse)  # what compiles Adam's update
    common.tune_for_device("mixed_float16")
    assert common.device_name() == "NVIDIA A100-SXM4-40GB (GPU)"
    variable = keras.Variable([1.0])
    optimizer = common.adam(0.1, 0.5)
    optimizer.build([variable])
    optimizer.apply([tf.constant([2.0])], [variable])
    assert float(variable.value[0]) == pytest.approx(0.9), "Adam's first step is the learning rate"


def test_memory_of_a_gpu():
    """Broken if TensorFlow takes all memory of a desktop's GPU."""
    assert os.environ["TF_FORCE_GPU_ALLOW_GROWTH"] == "true"


@pytest.mark.skipif(os.name == "nt", reason="a shell script plays nvidia-smi")
@pytest.mark.parametrize(
    "case",
    [
        ("linux", "GPU 0: NVIDIA T4 (UUID: GPU-1)", None, "pip install -r requirements-gpu.txt"),
        ("win32", "GPU 0: NVIDIA T4 (UUID: GPU-1)", None, "WSL2"),
        ("linux", "GPU 0: NVIDIA T4 (UUID: GPU-1)", "-1", ""),
        ("linux", "No devices found.", None, ""),
    ],
)
def test_idle_gpu(case, tmp_path, monkeypatch, capsys):
    """Broken if one trains beside an idle GPU and is not told the cure, or is told for nothing."""
    platform, listed, chosen, warning = case
    smi = tmp_path / "nvidia-smi"
    smi.write_text(f"#!/bin/sh\necho '{listed}'\n", encoding="utf-8")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(common, "WINDOWS", platform == "win32")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if chosen:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
    common.warn_of_idle_gpu()
    told = capsys.readouterr().err.splitlines()
    assert len(told) == bool(warning)
    assert not told or told[0].startswith("Warning: GPU 0: NVIDIA T4 is here") and warning in told[0]


@pytest.mark.parametrize(
    "seconds, told", [({"bfloat16": 10.0, "float32": 1.0}, True), ({"bfloat16": 0.5, "float32": 1.0}, False)]
)
def test_slow_precision(seconds, told, monkeypatch, capsys):
    """Broken if a precision that costs time is taken without a word, or one that saves it is blamed."""
    monkeypatch.setattr(common, "seconds_of_convolution", seconds.get)
    common.warn_of_slow_precision("mixed_bfloat16")
    err = capsys.readouterr().err
    assert ("--precision mixed_bfloat16: this processor takes 10.0 times as long" in err) == told == bool(err)
    common.warn_of_slow_precision("float32")
    assert not capsys.readouterr().err


def test_convolution_takes_time():
    """Broken if the trial of a precision computes nothing, or takes a training's time."""
    for dtype in ("float32", "bfloat16", "float16"):
        assert 0.0 < common.seconds_of_convolution(dtype) < 2.0


@pytest.mark.parametrize(
    "module, version, words",
    [
        ("tf", "2.17.1", "error: TensorFlow 2.17.1: needs 2.18 or newer: python -m pip install -r"),
        ("keras", "3.5.0", "error: Keras 3.5.0: needs 3.6 or newer: python -m pip install -r"),
        ("tf", "2.22.0-rc1", "Warning: TensorFlow 2.22.0-rc1 is newer than these scripts"),
        ("tf", "2.18.0", ""),
        ("tf", "2.21.1", ""),
    ],
)
def test_versions(module, version, words, monkeypatch, capsys):
    """Broken if another TensorFlow ends in a traceback, or one that serves is refused."""
    monkeypatch.setattr(getattr(common, module), "__version__", version)
    if "error" in words:
        with pytest.raises(SystemExit, match="2"):
            common.refuse_other_versions()
    else:
        common.refuse_other_versions()
    err = capsys.readouterr().err
    assert words in err and len(err.splitlines()) == bool(words)


def test_nothing_is_installed():
    """Broken if a script that is run by a Python without TensorFlow answers with a traceback."""
    code = "import sys; sys.modules['tensorflow'] = sys.modules['keras'] = None; import common"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=HERE, capture_output=True, encoding="utf-8", check=False
    )
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert "is not installed: python -m pip install -r requirements.txt" in done.stderr


def test_signals_that_there_are(monkeypatch):
    """Broken if a training asks for a signal that Windows does not have."""
    monkeypatch.delattr(signal, "SIGHUP", raising=False)
    with common.deferring_signals() as signals:
        signal.raise_signal(signal.SIGTERM)
    assert signals == [signal.SIGTERM]


@pytest.mark.skipif(not shutil.which("make"), reason="no make here")
@pytest.mark.parametrize("flags, file", [([], "requirements.txt"), (["GPU=1"], "requirements-gpu.txt")])
def test_make_installs_for_the_device(flags, file, tmp_path):
    """Broken if GPU=1 does not bring CUDA's libraries, or installs at each call."""
    for name in ("Makefile", "requirements.txt", "requirements-gpu.txt"):
        shutil.copy(HERE / name, tmp_path)
    command = ["make", "-n", "gan", *flags]
    env = {name: value for name, value in os.environ.items() if name not in {"MAKEFLAGS", "GPU"}}
    words = subprocess.run(
        command, cwd=tmp_path, env=env, capture_output=True, encoding="utf-8", check=True
    ).stdout
    assert f"-r {file}\n" in words
    (tmp_path / ".venv").mkdir()
    (tmp_path / re.search(r"touch (\S+)", words)[1]).touch()
    words = subprocess.run(
        command, cwd=tmp_path, env=env, capture_output=True, encoding="utf-8", check=True
    ).stdout
    assert "pip" not in words and "01_gan_mnist.py" in words


def test_notebook():
    """Broken if the notebook has outputs, or runs a script that is gone, or with flags that are."""
    notebook = json.loads((HERE / "docs" / "colab.ipynb").read_text(encoding="utf-8"))
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] or cell["execution_count"] for cell in cells)
    commands = re.findall(r"^!python (\S+)(.*)", "\n".join("".join(c["source"]) for c in cells), re.MULTILINE)
    assert [script[:2] for script, _ in commands] == ["01", "02", "03", "04", "05", "06"]
    for script, flags in commands:
        text = "".join((HERE / file).read_text(encoding="utf-8") for file in (script, "common.py"))
        assert all(f'"{flag}"' in text for flag in re.findall("--[a-z-]+", flags))
