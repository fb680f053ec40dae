"""Training on several devices or in several processes gives the same result as on one device.

Devices are parts of the processor; processes talk over the loopback interface.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import common

import pytest
import tensorflow as tf
from conftest import HERE

GAN = ["01_gan_mnist.py", "--steps-per-epoch", 4, "--epochs", 3, "--out", "run"]


def start(folder, script, *flags, cluster=(), index=0):
    """Starts a script; if `cluster` has ports, as process number `index` of that cluster."""
    env = os.environ | {"CUDA_VISIBLE_DEVICES": "-1", "PYTHONPATH": str(HERE)}
    if cluster:
        task = {"type": "worker", "index": index}
        workers = [f"127.0.0.1:{port}" for port in cluster]
        env["TF_CONFIG"] = json.dumps({"cluster": {"worker": workers}, "task": task})
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    command = [sys.executable, HERE / script, *map(str, flags)]
    return subprocess.Popen(command, cwd=folder, env=env, **pipes)


def end(process, status=0, seconds=240):
    words = process.communicate(timeout=seconds)[0]
    assert status is None or process.returncode == status, words
    return words


def start_two(folder, script, *flags):
    """Starts a script as two processes that share a folder: the chief, then the other."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    cluster = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return [start(folder, script, *flags, cluster=cluster, index=n) for n in (0, 1)]


def steps_saved(run):
    return sorted(int(path.name[5:]) for path in (run / "saved").glob("step_*"))


@pytest.fixture(scope="module")
def smooth_gan(tmp_path_factory):
    """Stage 1 without ReLU's kinks, where a rounding error can change a gradient altogether."""
    script = tmp_path_factory.mktemp("smooth") / "gan.py"
    code = (HERE / GAN[0]).read_text(encoding="utf-8")
    assert code.count('"relu"') == 6
    script.write_text(code.replace('"relu"', '"softplus"'))
    return [script, *GAN[1:]]


def assert_same_run(run, wanted):
    """Compares losses, weights and Adam's moments, which reveal the size of gradients."""
    rows, same = (common.read_rows(folder / "losses.csv") for folder in (run, wanted))
    assert rows == [pytest.approx(row, rel=1e-4) for row in same]
    states = [str(folder / "saved" / "step_00000012" / "state") for folder in (run, wanted)]
    for name, _ in tf.train.list_variables(states[1]):
        value, other = (tf.train.load_variable(state, name) for state in states)
        if not isinstance(value, bytes):  # TensorFlow's own notes
            value, other = tf.cast(value, tf.float64), tf.cast(other, tf.float64)
            size = float(tf.reduce_max(abs(other)))
            assert float(tf.reduce_max(abs(value - other))) <= 1e-3 * size, name


@pytest.mark.slow
def test_devices_and_processes_train_as_one(smooth_gan, tmp_path):
    """Broken if replicas see other data or noise than one device does, or average wrongly.

    One run is trained on one device; the other trains one epoch on two devices, one in two
    processes and one on one device.
    """
    (tmp_path / "alone").mkdir()
    end(start(tmp_path / "alone", *smooth_gan))
    assert "eagerly" not in end(start(tmp_path, *smooth_gan, "--epochs", 1, "--devices", 2))
    chief, other = map(end, start_two(tmp_path, *smooth_gan, "--epochs", 2))
    assert "continues after step 4" in chief
    assert "Worker finished; results are on the chief." in other.splitlines()[-2:]  # TF adds one
    end(start(tmp_path, *smooth_gan))
    assert_same_run(tmp_path / "run", tmp_path / "alone" / "run")


@pytest.fixture
def two_training(tmp_path):
    """Two processes in the middle of a long run of stage 1, and the folder of that run."""
    processes = start_two(tmp_path, *GAN, "--epochs", 100_000)
    deadline = time.monotonic() + 200
    while len(steps_saved(tmp_path / "run")) < 2:
        assert time.monotonic() < deadline and not any(p.poll() for p in processes)
        time.sleep(0.1)
    yield *processes, tmp_path / "run"
    for process in processes:
        process.kill()


@pytest.mark.slow
@pytest.mark.linux
def test_ctrl_c_in_two_processes(two_training):
    """Broken if Ctrl-C does not save the run and end both processes within half a minute."""
    chief, other, run = two_training
    for process in (chief, other):
        process.send_signal(signal.SIGINT)
    stopped = time.monotonic()
    words = end(chief, 130, seconds=30)
    end(other, None, seconds=30)
    assert time.monotonic() - stopped < 30
    assert f"Stopped at step {steps_saved(run)[-1]}, saved. Run the same command" in words
    step = steps_saved(run)[-1]
    words = end(start(run.parent, *GAN, "--epochs", step // 4 + 2))
    assert f"continues after step {step} " in words


@pytest.mark.slow
@pytest.mark.linux
def test_killed_process(two_training):
    """Broken if the chief hangs when another process dies, or ends in a traceback."""
    chief, other, _ = two_training
    other.kill()
    words = end(chief, 2, seconds=60)
    assert words.splitlines()[-1].startswith("01_gan_mnist.py: error: TF_CONFIG: another process")
    assert "Traceback" not in words


@pytest.mark.slow
@pytest.mark.parametrize("config", ["{", '{"cluster": {"worker": ["127.0.0.1:1"]}}'])
def test_wrong_cluster(config, tmp_path, monkeypatch):
    """Broken if a mistake in TF_CONFIG is reported without its reason, or is ignored."""
    monkeypatch.setenv("TF_CONFIG", config)
    words = end(start(tmp_path, *GAN), 2)
    line = words.splitlines()[-1]
    assert line.startswith("01_gan_mnist.py: error: TF_CONFIG: unset it, or fix the cluster: ")
    assert "JSONDecodeError('Expecting" in line or "ValueError('When `cluster_spec`" in line
    assert "Traceback" not in words and not list(tmp_path.iterdir())
