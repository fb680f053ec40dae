"""The training loop, with networks of one weight: what it counts, writes and saves, how it ends.

The loss of step k is k, so a row of losses.csv shows which step it belongs to.
"""

import argparse
import json
import math
import os
import signal

import common

import keras
import pytest
import tensorflow as tf

STEPS = 25  # per epoch


class Toy(common.AdversarialModel):
    """Counts its steps in the generator's weight; scores a pair by its distance from it."""

    def __init__(self):
        super().__init__()
        layers = [keras.layers.Dense(1, use_bias=False) for _ in range(2)]
        networks = [keras.Sequential([keras.Input((1,)), layer]) for layer in layers]
        self.generator, self.discriminator = networks
        self.weight = layers[0].kernel
        self.weight.assign([[0.0]])
        self.generator_optimizer = keras.optimizers.SGD(0.0)
        self.discriminator_optimizer = keras.optimizers.SGD(0.0)

    def steps(self, weights=None):
        if weights:
            self.weight.assign([[0.0]])
            self.generator.load_weights(weights)
        return float(self.weight.value[0, 0])

    def train_step(self, batch):
        self.weight.assign_add([[1.0]])
        return {"second": -tf.reduce_mean(batch), "first": tf.reduce_mean(batch)}

    def test_step(self, pair):
        return {"l1": abs(pair - self.weight.value[0, 0])}


class Loop:
    """Trains toys in one run; each continues the one before."""

    def __init__(self, run):
        self.run, self.curves, self.spans = run, [], []

    def __call__(self, epochs, draw=lambda path: None, model=None, pairs=(), **options):
        model = model or Toy()

        def score():
            scores = [model.test_step(pair) for pair in pairs]
            return common.mean_scores(scores, "val_") | {"condition_l1": 0.5} if pairs else {}

        def batches(first_step, last_step):
            self.spans.append((first_step, last_step))
            numbers = tf.data.Dataset.range(first_step + 1, last_step + 1)
            return numbers.map(lambda n: tf.cast(n, tf.float32)).batch(1)

        usual = {"steps_per_epoch": STEPS, "draw": draw, "batches": batches, "score": score}
        args = argparse.Namespace(epochs=epochs)
        return model, common.train(model, self.run, args=args, **usual | options)

    def rows(self):
        header, *lines = (self.run / "losses.csv").read_text().splitlines()
        assert header == "epoch,step,first,second"
        return [tuple(float(value) for value in line.split(",")) for line in lines]

    def saved(self):
        return sorted(path.name for path in (self.run / "saved").iterdir())


@pytest.fixture
def loop(tmp_path, monkeypatch):
    (tmp_path / "samples").mkdir()
    loop = Loop(tmp_path)
    monkeypatch.setattr(common, "draw_curves", lambda path, *tables: loop.curves.append(tables))
    return loop


EVERY_STEP = [(10, [10, 20, 25, 35, 45, 50]), (30, [25, 50]), (12, [12, 24, 25, 37, 49, 50])]


@pytest.mark.parametrize("row_every, steps", EVERY_STEP)
def test_a_row_has_the_losses_of_its_own_step(row_every, steps, loop):
    """Broken if a row is missing, or has another epoch's number or another step's losses."""
    model, _ = loop(2, row_every=row_every)
    assert loop.rows() == [(1 + (step > STEPS), step, step, -step) for step in steps]
    assert model.steps() == 2 * STEPS, "steps are left out or repeated"


def test_a_run_continues_with_the_next_step(loop, capsys):
    """Broken if a run that continues repeats or skips a step, a row, an epoch or a picture."""
    drawn = []
    options = {"draw": lambda path: drawn.append(path.name), "pairs": [tf.constant(0.0)]}
    loop(1, **options)
    model, metrics = loop(3, **options)
    assert f"{loop.run} continues after step 25 (1.00 epochs)." in capsys.readouterr().out
    assert loop.spans == [(0, STEPS), (STEPS, 3 * STEPS)]
    assert model.steps() == 3 * STEPS, "the weights are not those of the checkpoint"
    assert [row[1] for row in loop.rows()] == [10, 20, 25, 35, 45, 50, 60, 70, 75]
    assert drawn == ["epoch_0001.png", "epoch_0002.png", "epoch_0003.png"]
    assert [(row["epoch"], row["val_l1"]) for row in metrics] == [(1, 25), (2, 50), (3, 75)]


def test_a_complete_run_trains_no_more(loop, capsys):
    """Broken if the command of a complete run trains again, or does not rewrite the results."""
    options = {"pairs": [tf.constant(1.0)]}
    loop(2, **options)
    loop.curves.clear()
    weights, before = loop.run / "generator.weights.h5", (loop.run / "losses.csv").read_bytes()
    weights.unlink()
    model, metrics = loop(2, **options)
    told = "is complete (2 epochs). Pass --epochs 3 or more to continue."
    assert told in capsys.readouterr().out
    assert model.steps() == 2 * STEPS == model.steps(weights)
    ((losses, drawn_metrics),) = loop.curves
    assert losses[-1]["step"] == 50 and drawn_metrics == metrics and len(metrics) == 2
    assert (loop.run / "losses.csv").read_bytes() == before


def test_weights_of_the_last_and_the_best_epoch(loop):
    """Broken if a weights file is from the wrong epoch, or a score is not the mean of its pairs.

    The distances to 38 and 42 are lowest after the second epoch's 50 steps.
    """
    pairs = [tf.constant(38.0), tf.constant(42.0)]
    model, metrics = loop(3, pairs=pairs)
    assert [row["val_l1"] for row in metrics] == [15.0, 10.0, 35.0]
    lines = (loop.run / "metrics.csv").read_text().splitlines()
    assert lines[:2] == ["epoch,val_l1,condition_l1", "1,15.000000,0.500000"]
    assert model.steps(loop.run / "best.weights.h5") == 50
    assert model.steps(loop.run / "generator.weights.h5") == 75


def test_an_epoch_has_its_checkpoint_last(loop):
    """Broken if a checkpoint counts an epoch as complete before its picture has been drawn."""

    def draw(path):
        if path.name == "epoch_0002.png":
            raise RuntimeError

    options = {"pairs": [tf.constant(0.0)]}
    with pytest.raises(RuntimeError):
        loop(2, draw, **options)
    assert loop.saved()[-1] == "step_00000025"
    drawn = []
    _, metrics = loop(2, lambda path: drawn.append(path.name), **options)
    assert drawn == ["epoch_0002.png"] and [row["epoch"] for row in metrics] == [1, 2]
    assert [row[1] for row in loop.rows()] == [10, 20, 25, 35, 45, 50]


@pytest.mark.parametrize("minutes, steps", [(2.0, [0, 10, 20, 25]), (1e4, [0, 25])])
def test_checkpoints_within_an_epoch(minutes, steps, loop, monkeypatch):
    """Broken if checkpoints are not CHECKPOINT_MINUTES apart within a long epoch.

    Each reading of the clock adds 13 seconds here, and there is one after every step.
    """
    made, save, clock = [], common.Checkpoints.save, iter(range(0, 10**6, 13))
    note = lambda checkpoints, step: made.append(step) or save(checkpoints, step)  # noqa: E731
    monkeypatch.setattr(common.Checkpoints, "save", note)
    monkeypatch.setattr(common.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(common, "CHECKPOINT_MINUTES", minutes)
    loop(1)
    assert made == steps


@pytest.mark.parametrize("number, status", [("SIGTERM", 143), ("SIGINT", 130)])
def test_a_signal_ends_the_run_after_its_step(number, status, loop, monkeypatch, capsys):
    """Broken if a signal in an epoch loses the step, or gives no message or a wrong exit status."""
    append = common.append_row

    def append_and_signal(table, row):
        append(table, row)
        signal.raise_signal(getattr(signal, number))

    monkeypatch.setattr(common, "append_row", append_and_signal)
    with pytest.raises(SystemExit) as end:
        loop(2)
    assert end.value.code == status and loop.saved()[-1] == "step_00000010"
    words = "Stopped at step 10, saved. Run the same command to continue."
    assert capsys.readouterr().err.splitlines()[-1] == words


def test_a_signal_during_validation_ends_the_run_after_the_epoch(loop):
    """Broken if a signal while a picture is drawn loses the epoch, or lets another one begin."""
    model, stop = Toy(), lambda path: signal.raise_signal(signal.SIGTERM)
    with pytest.raises(SystemExit) as end:
        loop(3, stop, model=model)
    assert end.value.code == 143 and loop.saved()[-1] == "step_00000025"
    assert len(loop.rows()) == 3 and model.steps(loop.run / "generator.weights.h5") == STEPS


def test_signals_are_collected_only_while_training(capfd):
    """Broken if a second Ctrl-C does nothing, an ignored signal counts, or handlers stay."""
    before, ignored = signal.getsignal(signal.SIGINT), signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with common.deferring_signals() as signals:
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGINT)
            assert signals == [signal.SIGINT]
            assert "Stopping after this step" in capfd.readouterr().err
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) == before
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, ignored)


def test_a_pipe_that_goes_away(monkeypatch):
    """Broken if, after Ctrl-C, the next line that is printed fails and the steps are lost."""
    calls = []
    monkeypatch.setattr(os, "write", lambda *_: os.listdir("gone"))  # raises an OSError
    monkeypatch.setattr(os, "dup2", lambda file, stream: calls.append(stream))
    monkeypatch.setattr(common.Path, "is_fifo", lambda path: True)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # as `run_main` sets it
    with common.deferring_signals():
        signal.raise_signal(signal.SIGINT)
    assert calls == [1], "stdout is still a pipe, to a `tee` that Ctrl-C has ended"
    assert signal.getsignal(signal.SIGPIPE) == signal.SIG_IGN, "a word to `tee` would be the last"


def test_a_batch_that_cannot_be_made(loop):
    """Broken if a damaged or lost picture costs a run the steps since its last checkpoint.

    The batches of steps 33 and 40 cannot be made; mended, the run continues with that step.
    """

    def batches(first_step, last_step):
        numbers = tf.data.Dataset.range(first_step + 1, last_step + 1)
        return numbers.map(lambda n: tf.cond(n == step, fails[error], lambda: 1.0)).batch(1)

    fails = {
        tf.errors.InvalidArgumentError: lambda: tf.debugging.check_numerics(math.nan, "damaged"),
        tf.errors.NotFoundError: lambda: tf.io.decode_raw(tf.io.read_file("lost"), tf.float32)[0],
    }
    damaged, lost = fails
    for step, error in ((33, damaged), (33, damaged), (40, lost)):  # 33: again, as the first step
        with pytest.raises(error):
            loop(2, batches=batches)
        assert loop.saved()[-1] == f"step_{step - 1:08d}"
    with pytest.raises(common.UserError, match="is in epoch 2. Pass --epochs 2 or more"):
        loop(1)  # its weights are not those of epoch 1's row in metrics.csv
    model, _ = loop(2)
    assert loop.spans == [(39, 50)] and model.steps() == 50
    assert [row[1] for row in loop.rows()] == [10, 20, 25, 35, 45, 50]


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_a_loss_that_is_no_number_ends_the_run(value, loop):
    """Broken if a run continues with NaN or infinity, or saves it in its table or checkpoint."""

    class Diverging(Toy):
        def train_step(self, batch):
            losses = super().train_step(batch)
            return losses | {"first": tf.where(losses["first"] < 32.0, 0.0, value)}

    words = "^NaN or infinite at step 32: first. Rerunning will fail the same way"
    with pytest.raises(common.UserError, match=words):
        loop(2, model=Diverging())
    table = (loop.run / "losses.csv").read_text()
    assert loop.saved()[-1] == "step_00000025" and "nan" not in table and "inf" not in table


def flags_of(run, **changed):
    """Parsed flags of a run: some may change when it continues, some may not."""
    flags = {"out": run, "fresh": False, "seed": 4, "precision": "float32", "size": (512, 256)}
    return argparse.Namespace(**flags | {"epochs": 3, "devices": 1, "dataset": "mine"} | changed)


@pytest.fixture
def files(tmp_path):
    (tmp_path / "mine" / "train").mkdir(parents=True)
    (tmp_path / "mine" / "train" / "a.png").write_bytes(b"12345")
    return [tmp_path / "mine" / "train" / "a.png"]


def test_options_tell_what_a_run_was_made_with(files, tmp_path):
    """Broken if options.json lacks a flag, its stage, the data or the versions."""
    run = common.start_run(flags_of(tmp_path / "run"), "pix2pix", {"train": 3}, files)
    options = json.loads((run / "options.json").read_text())
    assert options["stage"] == "pix2pix"
    assert options["flags"] == {
        "--out": str(run), "--fresh": False, "--seed": 4, "--precision": "float32",
        "--size": [512, 256], "--epochs": 3, "--devices": 1, "--dataset": "mine",
    }  # fmt: skip
    # sha256 of "train/a.png": names, so that the data may move.
    assert len(options["data"].pop("code")) == 16
    assert options["data"] == {"train": 3, "files": "f1665762b02cc96e", "bytes": 5}
    assert options["versions"]["keras"] == keras.__version__ and (run / "samples").is_dir()


def test_which_changes_a_run_continues_with(files, tmp_path, capsys, monkeypatch):
    """Broken if more epochs are refused, or a change that makes it another training is accepted."""
    run, script = tmp_path / "run", tmp_path / "mine.py"
    script.write_text("LEARNING_RATE = 1")
    monkeypatch.setattr("sys.argv", [str(script)])

    def start(stage="gan", data=(), **changed):
        common.start_run(flags_of(run, **changed), stage, {"train": 1} | dict(data), files)

    start()
    (run / "metrics.csv").write_text("junk")  # which the checkpoint will put right
    start(epochs=9, devices=2, dataset="elsewhere/mine")
    assert not capsys.readouterr().err
    kept = (run / "options.json").read_text()
    for name, value, words in (
        ("seed", 5, "--seed 4 -> 5"),
        ("precision", "mixed_bfloat16", "--precision float32 -> mixed_bfloat16"),
        ("size", (256, 256), r"--size \[512, 256\] -> \[256, 256\]"),
        ("data", {"train": 2}, "train 1 -> 2"),
        ("stage", "cgan", "holds a run of gan, not of cgan"),
    ):
        with pytest.raises(common.UserError, match=words):
            start(**{name: value})
    files[0].write_bytes(b"1234567")  # repaired, say
    start(epochs=9, devices=2, dataset="elsewhere/mine")
    assert "the data changed from 5 to 7 bytes; the run goes on" in capsys.readouterr().err
    files.append(files[0])
    with pytest.raises(common.UserError, match="files .* -> .*--start-from .*run with another"):
        start()
    assert (run / "options.json").read_text().replace('"bytes": 7', '"bytes": 5') == kept
    script.write_text("LEARNING_RATE = 2")
    files.pop()
    start()
    assert "the code has changed. If networks, " in capsys.readouterr().err


def test_fresh_keeps_the_earlier_run(files, tmp_path):
    """Broken if --fresh deletes the earlier run, or continues it."""
    for seed, names in enumerate((["run"], ["run", "run.1"], ["run", "run.1", "run.2"])):
        common.start_run(flags_of(tmp_path / "run", seed=seed, fresh=True), "gan", {}, files)
        assert sorted(path.name for path in tmp_path.glob("run*")) == names
    for seed, name in enumerate(("run.1", "run.2", "run")):
        options = json.loads((tmp_path / name / "options.json").read_text())
        assert options["flags"]["--seed"] == seed
