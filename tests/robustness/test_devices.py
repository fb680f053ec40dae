"""Training shared out over devices and over processes goes on, ends, and moves; a GAN's is the same.

Devices are parts of the processor; processes talk over the loopback interface.
"""

import csv
import json
import math
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import common

import pytest
import tensorflow as tf

HERE = Path(__file__).parent.parent.parent
GAN = ["01_gan_mnist.py", "--steps-per-epoch", 4, "--epochs", 3]


def start(folder, script, *flags, cluster=(), index=0):
    """Starts a script, as one of the processes of a cluster of ports if there is one."""
    env = os.environ | {"CUDA_VISIBLE_DEVICES": "-1", "PYTHONPATH": str(HERE)}
    if cluster:
        workers = [f"127.0.0.1:{port}" for port in cluster]
        env["TF_CONFIG"] = json.dumps(
            {"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}}
        )
    return subprocess.Popen(
        [sys.executable, HERE / script, *map(str, flags)],
        cwd=folder,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def end(process, status=0):
    words = process.communicate(timeout=240)[0]
    assert process.returncode == status, words
    return words


def read_rows(path):
    """The rows of a table, as dicts of numbers."""
    with path.open(newline="") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def train_on_two(folders, script, *flags, other_flags=None, statuses=(0, 0)):
    """Runs a script as two processes, each in its folder, to the end; returns what each printed."""
    cluster = free_ports(2)
    all_flags = (flags, flags if other_flags is None else other_flags)
    for folder in folders:
        folder.mkdir(exist_ok=True)
    processes = [start(folders[n], script, *all_flags[n], cluster=cluster, index=n) for n in (0, 1)]
    return [end(process, status) for process, status in zip(processes, statuses)]


@pytest.fixture(scope="module")
def smooth_gan(tmp_path_factory):
    """Stage 1 without the kinks of ReLU, where a rounding error becomes another gradient altogether."""
    script = tmp_path_factory.mktemp("smooth") / GAN[0]
    code = (HERE / GAN[0]).read_text()
    assert code.count('"relu"') == 6
    script.write_text(code.replace('"relu"', '"softplus"'))
    return [script, *GAN[1:]]


@pytest.fixture(scope="module")
def alone(smooth_gan, tmp_path_factory):
    """The run on one device that the others are compared with."""
    folder = tmp_path_factory.mktemp("alone")
    end(start(folder, *smooth_gan, "--out", "run"))
    return folder / "run"


def assert_same_run(run, wanted):
    """The losses, and in the last checkpoint the weights and Adam's moments, which tell gradients' size."""
    assert read_rows(run / "losses.csv") == [
        pytest.approx(row, rel=1e-4) for row in read_rows(wanted / "losses.csv")
    ]
    states = [str(folder / "saved" / "step_00000012" / "state") for folder in (run, wanted)]
    for name, _ in tf.train.list_variables(states[1]):
        value, other = (tf.train.load_variable(state, name) for state in states)
        if not isinstance(value, bytes):  # the names of all things saved
            value, other = tf.cast(value, tf.float64), tf.cast(other, tf.float64)
            size = float(tf.reduce_max(abs(other)))
            assert float(tf.reduce_max(abs(value - other))) <= 1e-3 * size, name


@pytest.mark.slow
def test_devices_and_processes(alone, smooth_gan, tmp_path):
    """Broken if replicas see other data or noise, or average other gradients, than one device.

    Or if a run cannot move: an epoch on two devices, one as two processes, one on one device.
    """
    end(start(tmp_path, *smooth_gan, "--epochs", 1, "--devices", 2, "--out", "run"))
    elsewhere = tmp_path / "other machine"
    chief, other = train_on_two([tmp_path, elsewhere], *smooth_gan, "--epochs", 2, "--out", "run")
    assert "goes on after step 4" in chief and "done its part" in other
    assert not list(elsewhere.iterdir()), "only the chief writes"
    end(start(tmp_path, *smooth_gan, "--out", "run"))
    assert_same_run(tmp_path / "run", alone)


TOY = """
import argparse, json, sys
sys.path.insert(0, sys.argv[1])
import common, keras, tensorflow as tf
common.set_devices(argparse.Namespace(devices=int(sys.argv[2]), batch_size=4))

def network():
    layer = keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")
    return keras.Sequential([keras.Input((1,)), layer])

class Toy(common.AdversarialModel):
    def __init__(self):
        super().__init__()
        self.generator, self.discriminator = network(), network()
        self.random = keras.random.SeedGenerator(3)
        self.built = True

    def train_step(self, batch):
        noise = self.noise(tf.shape(batch)[0], 1)
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(self.generator(batch + noise) ** 2)
        common.minimise(loss, tape, self.generator, self.generator_optimizer)
        return {"loss": loss, "noise": tf.reduce_mean(noise**2)}

model = Toy()
model.set_optimizers(common.adam(0.1, 0.5), common.adam(0.1, 0.5))
batches = tf.data.Dataset.from_tensor_slices([[1.0], [2.0], [4.0], [9.0]]).repeat(3).batch(4)
step = common.make_train_function(model, batches)
numbers = [*step(1).values(), *step(2).values()]
numbers += [float(tf.reduce_sum(tf.cast(v.value, tf.float32))) for v in model.generator_optimizer.variables]
print(json.dumps(numbers))
"""


@pytest.mark.slow
def test_two_devices_are_one(tmp_path):
    """Broken if two devices have other losses, other noise or another gradient than one of both's batch.

    The optimiser's moments are compared, since Adam's steps hide how large a gradient is.
    """
    numbers = []
    for devices in (1, 2):
        command = [sys.executable, "-c", TOY, HERE, str(devices)]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        numbers.append(json.loads(done.stdout.splitlines()[-1]))
    assert numbers[0] == pytest.approx(numbers[1], rel=1e-5) and len(numbers[0]) == 8


@pytest.mark.slow
def test_fewer_devices_within_an_epoch(call_main, tmp_path):
    """Broken if a run that was stopped within an epoch on two devices cannot end it on one, as promised.

    50 steps, of which those that are left are no multiple of how many are taken at a time.
    """
    code = """
import importlib, signal, sys
sys.argv[0] = "01_gan_mnist.py"
sys.path.insert(0, sys.argv.pop(1))
import common
stage1 = importlib.import_module("01_gan_mnist")
step, signals = stage1.GAN.train_step, [signal.SIGTERM]

def stop(model, batch):  # sends while it is being traced for the first device
    if signals:
        signal.raise_signal(signals.pop())
    return step(model, batch)

stage1.GAN.train_step = stop
common.run_main(stage1.main)
"""
    flags = ["--steps-per-epoch", "50", "--epochs", "1", "--out", "run"]
    command = [sys.executable, "-c", code, HERE, *flags, "--devices", "2"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 143 and "Stopped and saved at step" in done.stderr, done.stderr
    done = call_main("01_gan_mnist.py", *flags)
    assert done.returncode == 0 and "goes on after step" in done.stdout, done.stderr
    assert read_rows(tmp_path / "run" / "losses.csv")[-1]["step"] == 50
    assert max(path.name for path in (tmp_path / "run" / "saved").iterdir()) == "step_00000050"


@pytest.mark.parametrize(
    "flags, problem",
    [
        (["--devices", 2, "--batch-size", 3], "--batch-size 3: not a multiple of the 2 devices"),
        (["--devices", "some"], "'some' is not a whole number"),
        (["--devices", 64, "--batch-size", 64], "--devices 64: there are at most 2 parts of the processor"),
        (["--devices", 0], "'0' is not a whole number from 1"),
    ],
)
def test_wrong_devices(flags, problem, call_main, tmp_path, monkeypatch):
    """Broken if what cannot be shared out ends in a traceback, or leaves a folder behind."""

    def find_pairs(dataset):
        raise common.UserError("got past the devices")

    monkeypatch.setattr(common, "find_pairs", find_pairs)
    done = call_main("05_pix2pix_train.py", *flags)
    assert done.returncode == 2 and problem in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("config", ["{", "{}", "[]", '{"cluster": {"worker": ["127.0.0.1:1"]}}'])
def test_wrong_cluster(config, tmp_path, monkeypatch):
    """Broken if a mistake in TF_CONFIG is not told by its name."""
    monkeypatch.setenv("TF_CONFIG", config)
    words = end(start(tmp_path, *GAN), status=2)
    assert words.splitlines()[-1].startswith("01_gan_mnist.py: error: TF_CONFIG: ")
    assert "Traceback" not in words


@pytest.mark.slow
def test_other_flags(tmp_path):
    """Broken if processes with other flags train together: none would know what the run is."""
    words = train_on_two(
        [tmp_path, tmp_path], *GAN, "--out", "run", other_flags=[*GAN[1:], "--seed", 1], statuses=(2, 2)
    )
    assert "the chief has other flags" in words[1] and "error: TF_CONFIG" in words[0]


@pytest.mark.slow
def test_cluster_of_one(tmp_path):
    """Broken if TF_CONFIG with a single process, as when trying it out, does not train."""
    end(start(tmp_path, *GAN, "--epochs", 1, "--out", "run", cluster=free_ports(1)))
    assert read_rows(tmp_path / "run" / "losses.csv")


@pytest.mark.slow
def test_loss_not_finite_elsewhere(tmp_path):
    """Broken if, in float16, a gradient that is infinite on the second device alone is applied."""
    code = """
import argparse, sys
sys.path.insert(0, sys.argv[1])
import common, keras, tensorflow as tf
common.set_devices(argparse.Namespace(devices=2, batch_size=2))
keras.config.set_dtype_policy("mixed_float16")
variable = keras.Variable([1.0])
optimizer = common.adam(0.1, 0.5)
optimizer.build([variable])
scale = float(optimizer.dynamic_scale.value.read_value())

@tf.function
def step():
    replica = tf.distribute.get_replica_context().replica_id_in_sync_group
    gradient = tf.where(tf.equal(replica, 1), [float("inf")], [1.0])
    optimizer.apply([gradient], [variable])

tf.distribute.get_strategy().run(step)
print(float(variable.value.read_value()[0]), float(optimizer.dynamic_scale.value.read_value()) / scale)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, HERE], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    device, numbers = done.stdout.splitlines()
    assert device.startswith("on "), done.stdout
    assert numbers.split() == ["1.0", "0.5"], done.stdout + done.stderr


@pytest.mark.slow
def test_killed_process(few_pairs, tmp_path):
    """Broken if the others hang when a process dies, or the run cannot go on with two, or one."""
    pix2pix = ["05_pix2pix_train.py", "--dataset", few_pairs, "--batch-size", 2, "--out", "run"]
    long = [*pix2pix, "--epochs", 50]
    cluster = free_ports(2)
    chief, other = (start(tmp_path, *long, cluster=cluster, index=n) for n in (0, 1))
    deadline = time.monotonic() + 200
    while not (tmp_path / "run" / "saved" / "step_00000002").exists():
        assert time.monotonic() < deadline and chief.poll() is None and other.poll() is None
        time.sleep(0.1)
    other.kill()
    killed = time.monotonic()
    words = end(chief, status=2)
    assert time.monotonic() - killed < 60
    assert words.splitlines()[-1].startswith("05_pix2pix_train.py: error: TF_CONFIG: another process")
    assert "Traceback" not in words
    other.communicate()

    epochs = max(int(path.name[5:]) for path in (tmp_path / "run" / "saved").glob("step_*")) // 2
    words, _ = train_on_two([tmp_path, tmp_path], *pix2pix, "--epochs", epochs + 1)
    assert f"goes on after step {2 * epochs}" in words
    end(start(tmp_path, *pix2pix, "--epochs", epochs + 2, "--devices", 2))
    end(start(tmp_path, *pix2pix, "--epochs", epochs + 3))
    for table in ("losses.csv", "metrics.csv"):
        rows = read_rows(tmp_path / "run" / table)
        assert [row["epoch"] for row in rows] == list(range(1, epochs + 4))
        assert all(math.isfinite(value) for row in rows for value in row.values())
