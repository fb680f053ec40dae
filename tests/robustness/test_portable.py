"""The scripts on other machines: with a GPU, on Windows. What is missing here is simulated."""

import os
import re
import shutil
import subprocess
from types import SimpleNamespace

import common

import keras
import pytest
import tensorflow as tf
from conftest import HERE


@pytest.fixture
def gpu(monkeypatch):
    """A GPU that exists in name only."""
    device = SimpleNamespace(name="/physical_device:GPU:0", device_type="GPU")
    devices = lambda kind: [device] if kind == "GPU" else []  # noqa: E731
    monkeypatch.setattr(tf.config, "get_visible_devices", devices)


def test_gpu_is_left_alone(gpu, monkeypatch):
    """Broken if a GPU gets the processor's settings: determinism, malloc options, compiled Adam."""

    def refuse(*args, **options):
        raise AssertionError

    monkeypatch.setattr(common.ctypes, "CDLL", refuse)
    monkeypatch.setattr(tf.config.experimental, "enable_op_determinism", refuse)
    monkeypatch.setattr(tf, "function", refuse)  # what compiles Adam's update
    common.tune_processor()
    one, other = keras.Variable([1.0]), keras.Variable([1.0])
    optimizer = common.CompiledAdam(0.1, beta_1=0.5)
    optimizer.build([one, other])
    optimizer.apply([tf.constant([2.0]), None], [one, other])  # the other has no gradient
    assert float(one.value[0]) == pytest.approx(0.9), "Adam's first step is the learning rate"


@pytest.mark.parametrize("listed, hidden, told", [(1, 0, 1), (0, 0, 0), (1, 1, 0)])
def test_a_processor_is_tuned(listed, hidden, told, monkeypatch, capsys):
    """Broken if determinism stays off on a processor, or the hint about an unused GPU is wrong.

    The switch is checked, not the bytes, which small networks repeat even without it.
    """
    asked, switch = [], "enable_op_determinism"
    monkeypatch.setattr(tf.config.experimental, switch, lambda: asked.append(switch))
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/nvidia-smi" if listed else None)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if hidden:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    common.tune_processor()
    lines = capsys.readouterr().err.splitlines()
    cure = "python -m pip install -r requirements-gpu.txt"
    assert len(lines) == told and all(line.endswith(cure) for line in lines)
    assert asked == [switch]


def test_lock_of_windows(tmp_path, monkeypatch):
    """Broken if Windows lets two processes train in one folder, or refuses with a traceback."""
    calls = []
    monkeypatch.delattr(os, "lockf")
    windows = SimpleNamespace(LK_NBLCK=2, locking=lambda *call: calls.append(call[1:]))
    monkeypatch.setattr(common, "msvcrt", windows, raising=False)
    os.close(common.lock(tmp_path))
    assert calls == [(2, 1)]

    def refuse(*call):
        raise PermissionError(13, "Permission denied")

    windows.locking = refuse
    with pytest.raises(common.UserError, match="another process is working in it"):
        common.lock(tmp_path)


@pytest.mark.skipif(not shutil.which("make"), reason="no make here")
@pytest.mark.parametrize("flag, kind", [("", ""), ("GPU=1", "-gpu")])
def test_make_installs_once(flag, kind, tmp_path):
    """Broken if GPU=1 does not install the GPU's requirements, or make installs at each call."""
    for name in ("Makefile", "requirements.txt", "requirements-gpu.txt"):
        shutil.copy(HERE / name, tmp_path)
    env = {name: value for name, value in os.environ.items() if name not in {"MAKEFLAGS", "GPU"}}

    def make():
        command = ["make", "-n", "gan", *flag.split()]
        return subprocess.check_output(command, cwd=tmp_path, env=env, text=True)

    words = make()
    assert f"-r requirements{kind}.txt\n" in words
    (tmp_path / ".venv").mkdir()
    (tmp_path / re.search(r"touch (\S+)", words)[1]).touch()
    assert "pip" not in make() and "01_gan_mnist.py" in make()
