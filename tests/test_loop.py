"""The training loop, tried with networks of one weight: what it counts, writes, saves and ends with.

The loss of step k is k, so a row of losses.csv shows which step it is of.
"""

import argparse
import json
import os
import signal

import common

import keras
import pytest
import tensorflow as tf

STEPS = 25  # of an epoch


class Toy(common.AdversarialModel):
    """Counts its steps in the generator's weight."""

    def __init__(self):
        super().__init__()
        self.generator, self.discriminator = (
            keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)]) for _ in range(2)
        )
        self.generator.layers[0].kernel.assign([[0.0]])
        self.built = True
        self.set_optimizers(keras.optimizers.SGD(0.0), keras.optimizers.SGD(0.0))

    def steps(self):
        return float(self.generator.layers[0].kernel.value[0, 0])

    def train_step(self, batch):
        self.generator.layers[0].kernel.assign_add([[1.0]])
        return {"second": -tf.reduce_mean(batch), "first": tf.reduce_mean(batch)}

    def test_step(self, pair):
        return {"l1": pair * 1.0}


@pytest.fixture
def loop(tmp_path, monkeypatch):
    """Trains toys in one run, each going on from the one before; returns the toy and what train returned."""
    (tmp_path / "samples").mkdir()
    curves = []
    monkeypatch.setattr(common, "draw_curves", lambda path, losses, metrics: curves.append((losses, metrics)))

    def loop(epochs, *, minutes=1e4, draw=lambda path: None, model=None, span=None, **options):
        model = model or Toy()
        args = argparse.Namespace(epochs=epochs, checkpoint_minutes=minutes)

        def batches(first_step, last_step):
            (span if span is not None else []).append((first_step, last_step))
            numbers = tf.data.Dataset.range(first_step + 1, last_step + 1)
            return numbers.map(lambda n: tf.cast(n, tf.float32)).batch(1)

        metrics = common.train(model, tmp_path, batches, args, steps_per_epoch=STEPS, draw=draw, **options)
        return model, metrics

    loop.curves, loop.run = curves, tmp_path
    return loop


def rows(run):
    header, *lines = (run / "losses.csv").read_text().splitlines()
    assert header == "epoch,step,first,second"
    return [tuple(float(value) for value in line.split(",")) for line in lines]


def saved(run):
    return sorted(path.name for path in (run / "saved").iterdir())


@pytest.mark.parametrize(
    "at_once, steps", [(1, [10, 20, 25, 35, 45, 50]), (7, [25, 50]), (12, [12, 24, 25, 37, 49, 50])]
)
def test_a_row_has_the_losses_of_its_own_step(at_once, steps, loop):
    """Broken if a row is missing, or has another epoch's number or another step's losses.

    Each epoch's last step has a row, and within it each tenth, or where so many steps are taken
    at once, those that end such a span.
    """
    model, _ = loop(2, steps_at_once=at_once)
    assert rows(loop.run) == [(1 + (step > STEPS), step, step, -step) for step in steps]
    assert model.steps() == 2 * STEPS, "steps are left out or repeated"


def test_going_on_begins_with_the_next_step(loop):
    """Broken if a run that goes on repeats or leaves out a step, a row, an epoch's scores or a picture."""
    drawn, spans = [], []
    validation = [tf.constant(0.25), tf.constant(0.75)]
    options = {"draw": lambda path: drawn.append(path.name), "span": spans, "validation": validation}
    loop(1, **options)
    model, metrics = loop(3, **options)
    assert spans == [(0, STEPS), (STEPS, 3 * STEPS)]
    assert model.steps() == 3 * STEPS, "the weights are not those of the checkpoint"
    assert [row[1] for row in rows(loop.run)] == [10, 20, 25, 35, 45, 50, 60, 70, 75]
    assert drawn == ["epoch_0001.png", "epoch_0002.png", "epoch_0003.png"]
    assert metrics == [{"epoch": epoch, "val_l1": 0.5} for epoch in (1, 2, 3)]
    assert saved(loop.run) == ["step_00000050", "step_00000075"]


def test_a_finished_run_trains_no_more(loop, capsys):
    """Broken if repeating the command of a finished run trains, or does not draw its curves again."""
    loop(2, validation=[tf.constant(1.0)])
    loop.curves.clear()
    (loop.run / "generator.weights.h5").unlink()
    before = (loop.run / "losses.csv").read_bytes()
    model, metrics = loop(2, validation=[tf.constant(1.0)])
    assert "has its 2 epochs; --epochs 3 or more trains on" in capsys.readouterr().out
    assert model.steps() == 2 * STEPS and [row["epoch"] for row in metrics] == [1, 2]
    ((losses, drawn_metrics),) = loop.curves
    assert losses[-1]["step"] == 50 and drawn_metrics == metrics
    assert (loop.run / "generator.weights.h5").exists()
    assert (loop.run / "losses.csv").read_bytes() == before


def test_scores_are_means_beside_what_doing_nothing_scores(loop):
    """Broken if a score is not the mean over the validation pairs, or the baseline is not beside it."""
    validation = [tf.constant(value) for value in (0.1, 0.2, 0.6)]
    loop(2, validation=validation, baseline=lambda: {"condition_l1": 0.5})
    lines = (loop.run / "metrics.csv").read_text().splitlines()
    assert lines == ["epoch,val_l1,condition_l1", "1,0.300000,0.500000", "2,0.300000,0.500000"]
    assert common.mean_scores([{"a": 1.0, "b": 5.0}, {"a": 2.0, "b": 7.0}], "x_") == {"x_a": 1.5, "x_b": 6.0}
    assert common.mean_scores([]) == {}


def test_an_epoch_has_its_checkpoint_last(loop):
    """Broken if a checkpoint says that an epoch is complete of which the picture was not drawn.

    What fails is drawing the second epoch's picture, after its steps and its scores.
    """

    def draw(path):
        if path.name == "epoch_0002.png":
            raise RuntimeError

    validation = [tf.constant(1.0)]
    with pytest.raises(RuntimeError):
        loop(2, draw=draw, validation=validation)
    assert saved(loop.run)[-1] == "step_00000025"
    drawn = []
    _, metrics = loop(2, draw=lambda path: drawn.append(path.name), validation=validation)
    assert drawn == ["epoch_0002.png"] and [row["epoch"] for row in metrics] == [1, 2]
    assert [row[1] for row in rows(loop.run)] == [10, 20, 25, 35, 45, 50]


@pytest.mark.parametrize("minutes, steps", [(-1.0, [0, 10, 20, 25]), (1e4, [0, 25])])
def test_checkpoints_within_an_epoch(minutes, steps, loop, monkeypatch):
    """Broken if --checkpoint-minutes has no effect, or an epoch is saved after each step of a long one."""
    made, save = [], common.Checkpoints.save
    monkeypatch.setattr(common.Checkpoints, "save", lambda self, step: made.append(step) or save(self, step))
    loop(1, minutes=minutes, steps_at_once=10)
    assert made == steps


def test_the_minutes_count_from_the_last_checkpoint(tmp_path, monkeypatch):
    """Broken if, after the first minutes of a long epoch, each step is followed by a checkpoint."""
    clock = [100.0]
    checkpoints = common.Checkpoints(tmp_path, [tf.Variable(1.0)])
    with monkeypatch.context() as patch:
        patch.setattr(common.time, "monotonic", lambda: clock[0])
        checkpoints.saved_at = clock[0]
        clock[0] += 120.0
        assert checkpoints.minutes_old() == 2.0
        checkpoints.save(1)
        assert checkpoints.minutes_old() == 0.0


@pytest.mark.parametrize("number, status", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_the_run_after_the_steps_under_way(number, status, loop, monkeypatch, capsys):
    """Broken if a polite kill within an epoch loses the step, is not told, or has another exit status."""
    append = common.Table.append

    def append_and_signal(table, row):
        append(table, row)
        signal.raise_signal(number)

    monkeypatch.setattr(common.Table, "append", append_and_signal)
    with pytest.raises(SystemExit) as end:
        loop(2)
    assert end.value.code == status
    assert saved(loop.run)[-1] == "step_00000010"
    assert "Stopped and saved at step 10." in capsys.readouterr().err


def test_a_signal_during_validation_ends_the_run_after_the_epoch(loop):
    """Broken if a polite kill while a picture is drawn loses the epoch, or begins another one."""
    model = Toy()
    stop = {"draw": lambda path: signal.raise_signal(signal.SIGTERM), "validation": [tf.constant(1.0)]}
    with pytest.raises(SystemExit) as end:
        loop(3, model=model, **stop)
    assert end.value.code == 143
    assert saved(loop.run)[-1] == "step_00000025" and len(rows(loop.run)) == 3
    model.generator.layers[0].kernel.assign([[0.0]])
    model.generator.load_weights(loop.run / "generator.weights.h5")
    assert model.steps() == STEPS, "the weights' file is another network's, or another epoch's"


def test_a_second_ctrl_c_stops_at_once(capfd):
    """Broken if the first Ctrl-C does not say what it waits for, or a second one is ignored."""
    with common.deferring_signals() as signals:
        signal.raise_signal(signal.SIGINT)
        assert signals == [signal.SIGINT]
        assert "Stopping after this step" in capfd.readouterr().err
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_signals_are_as_before_after_training(monkeypatch):
    """Broken if Ctrl-C after a training is collected, or `nohup` no longer keeps a run alive."""
    before = signal.getsignal(signal.SIGTERM)
    hang_up = getattr(signal, "SIGHUP", signal.SIGINT)
    ignored = signal.signal(hang_up, signal.SIG_IGN)
    try:
        with common.deferring_signals() as signals:
            assert signal.getsignal(signal.SIGTERM) != before
            signal.raise_signal(hang_up)
        assert signals == [] and signal.getsignal(hang_up) == signal.SIG_IGN
    finally:
        signal.signal(hang_up, ignored)
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("at_once, words", [(1, "step 32"), (10, "steps 26 to 35")])
def test_a_loss_that_is_no_number_ends_the_run(at_once, words, value, loop):
    """Broken if a run goes on with NaN or infinity, writes it down, or keeps it in a checkpoint.

    Of the steps that are taken at once the last one is looked at, as the others are not kept.
    """

    class Diverging(Toy):
        def train_step(self, batch):
            losses = super().train_step(batch)
            return losses | {"first": tf.where(losses["first"] < 32.0, 0.0, value)}

    with pytest.raises(common.UserError, match=f"^{words}: NaN or infinite: first; .* is step_00000025"):
        loop(2, model=Diverging(), steps_at_once=at_once)
    table = (loop.run / "losses.csv").read_text()
    assert saved(loop.run)[-1] == "step_00000025" and "nan" not in table and "inf" not in table


def test_the_weights_file_is_the_last_epochs(loop):
    """Broken if generator.weights.h5 is that of another epoch than the last, or of the discriminator."""
    model, _ = loop(2)
    model.generator.layers[0].kernel.assign([[0.0]])
    model.generator.load_weights(loop.run / "generator.weights.h5")
    assert model.steps() == 2 * STEPS


def test_a_checkpoint_is_of_all_variables():
    """Broken if a run that goes on has new noise, or new moments of Adam: not all variables are kept."""
    model = Toy()
    model.random = keras.random.SeedGenerator(3)
    model.set_optimizers(common.adam(0.1, 0.5), common.adam(0.1, 0.5))
    kept = {id(variable) for variable in model.state()}
    owners = (model.generator, model.discriminator, model.generator_optimizer, model.discriminator_optimizer)
    wanted = [variable.value for owner in owners for variable in owner.variables]
    wanted.append(model.random.state.value)
    assert {id(variable) for variable in wanted} <= kept
    names = [variable.path for variable in model.generator_optimizer.variables]
    assert any("momentum" in name for name in names) and any("velocity" in name for name in names)


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    """Broken if writing that fails costs the earlier file, or leaves a piece of the new one."""
    path = tmp_path / "table.csv"
    path.write_text("earlier")
    with pytest.raises(RuntimeError), common.replacing(path) as temporary:
        temporary.write_text("half")
        assert path.read_text() == "earlier"
        raise RuntimeError
    assert path.read_text() == "earlier" and os.listdir(tmp_path) == ["table.csv"]
    with common.replacing(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new" and os.listdir(tmp_path) == ["table.csv"]


def test_the_current_folder_is_the_same_after_reading(tmp_path, monkeypatch):
    """Broken if reading a checkpoint leaves the script in the checkpoint's folder."""
    monkeypatch.chdir(tmp_path)
    checkpoints = common.Checkpoints(tmp_path, [tf.Variable(1.0)])
    checkpoints.restore()
    checkpoints.restore()
    with pytest.raises(RuntimeError), common.working_in(tmp_path / "saved"):
        raise RuntimeError
    assert os.getcwd() == str(tmp_path)


def test_a_processor_repeats_its_bytes(monkeypatch):
    """Broken if the processor's determinism, or its kept memory, is no longer asked for.

    TensorFlow's own switch is looked at, and no bytes: small networks repeat them without it, too.
    """
    asked = []
    monkeypatch.setattr(tf.config.experimental, "enable_op_determinism", lambda: asked.append("determinism"))
    monkeypatch.setattr(common, "keep_memory", lambda: asked.append("memory"))
    common.tune_for_device("float32")
    assert sorted(asked) == ["determinism", "memory"]


def test_checkpoints_are_a_run_of_two(tmp_path):
    """Broken if more than the last two checkpoints take room, or fewer are left when one is damaged."""
    checkpoints = common.Checkpoints(tmp_path, [tf.Variable(1.0)])
    checkpoints.restore()
    for step in (3, 20, 100):
        checkpoints.save(step)
    assert saved(tmp_path) == ["step_00000020", "step_00000100"]


def test_options_tell_what_a_run_was_made_with(tmp_path, monkeypatch):
    """Broken if options.json does not say all flags, the data, the versions and its own format."""
    args = argparse.Namespace(
        out=tmp_path / "run", fresh=False, seed=4, precision="float32", size=(512, 256), loss="l1"
    )
    monkeypatch.setattr("sys.argv", ["/somewhere/05_pix2pix_train.py"])
    assert common.start_run(args, {"train": 3}, {"a": "1", "b": "2"}) == tmp_path / "run"
    options = json.loads((tmp_path / "run" / "options.json").read_text())
    assert options["format"] == common.FORMAT
    assert options["flags"] == {
        "--out": str(tmp_path / "run"), "--fresh": False, "--seed": 4, "--precision": "float32",
        "--size": "512x256", "--loss": "l1",
    }  # fmt: skip
    assert options["data"]["script"] == "05_pix2pix_train.py" and options["data"]["train"] == 3
    assert options["data"]["contents of the data"] == "6b51d431df5d7f14"  # sha256 of "12"
    assert options["versions"]["keras"] == keras.__version__
    assert (tmp_path / "run" / "samples").is_dir()


def test_which_changes_a_run_goes_on_with(tmp_path):
    """Broken if more epochs are refused, or a flag that makes another training of it is not."""
    flags = {"--epochs": 3, "--out": "a", "--fresh": False, "--checkpoint-minutes": 10.0, "--devices": 1}
    flags |= {"--seed": 0, "--batch-size": 4, "--loss": "l1", "--dataset": "mine"}
    data = {"script": "05_pix2pix_train.py", "train": 4, "contents of the data": "x", "condition": "sketch"}
    file = tmp_path / "options.json"
    file.write_text(json.dumps({"format": common.FORMAT, "flags": flags, "data": data, "versions": {}}))
    changes = {"--epochs": 9, "--out": "b", "--fresh": True, "--checkpoint-minutes": 1.0, "--devices": 2}
    for name, value in (changes | {"--dataset": "moved"}).items():
        common.refuse_changes(file, flags | data | {name: value})
    changes = {"--seed": 1, "--batch-size": 2, "--loss": "cgan", "script": "01_gan_mnist.py", "train": 3}
    for name, value in (changes | {"contents of the data": "y", "condition": "labels"}).items():
        with pytest.raises(common.UserError, match=f"{name} .* -> {value}"):
            common.refuse_changes(file, flags | data | {name: value})
    with pytest.raises(common.UserError, match="--dataset mine -> other"):
        common.refuse_changes(file, flags | data | {"--dataset": "other", "contents of the data": "y"})
    file.write_text(json.dumps({"format": common.FORMAT + 1, "flags": flags, "data": data}))
    with pytest.raises(common.UserError, match="another version of these scripts"):
        common.refuse_changes(file, flags | data)
