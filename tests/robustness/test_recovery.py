"""What is left of a run after signals, damage and mistakes: all of it, or a clear word."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import common

import pytest
import tensorflow as tf

HERE = Path(__file__).parent.parent.parent
FLAGS = ["--steps-per-epoch", "78", "--epochs", "4"]  # two rows of losses an epoch


def saved(run, values=(1.0, 2.0)):
    """A run of two checkpoints, of steps 10 and 20; `variable` held `values` then."""
    variable = tf.Variable(tf.zeros(50))
    checkpoints = common.Checkpoints(run, [variable])
    assert checkpoints.restore() == 0
    for step, value in zip((10, 20), values):
        variable.assign(tf.fill((50,), value))
        checkpoints.save(step)
    assert checkpoints.names() == ["step_00000010", "step_00000020"]
    return variable, checkpoints


def damages(content):
    """Ways in which a file gets spoilt: what is left of it, None for nothing at all."""
    yield "missing", None
    yield "emptied", b""
    for share in (0.1, 0.5, 0.9):
        yield f"cut at {share}", content[: int(share * len(content))]
    yield "one byte short", content[:-1]
    for place in range(0, len(content), 7):
        yield f"byte {place} flipped", content[:place] + bytes([content[place] ^ 255]) + content[place + 1 :]
    yield "overwritten", bytes(len(content))


@pytest.mark.parametrize("part", ["state.index", "state.data-00000-of-00001"])
def test_damaged_checkpoint(part, tmp_path, capsys):
    """Broken if a damaged checkpoint is used, or ends the run though the one before is whole."""
    variable, checkpoints = saved(tmp_path)
    shutil.copytree(checkpoints.folder, tmp_path / "whole")
    content = (checkpoints.folder / "step_00000020" / part).read_bytes()
    fell_back = 0
    for name, left in damages(content):
        shutil.rmtree(checkpoints.folder)
        shutil.copytree(tmp_path / "whole", checkpoints.folder)
        path = checkpoints.folder / "step_00000020" / part
        path.unlink() if left is None else path.write_bytes(left)
        step = checkpoints.restore()
        told = "step_00000020 is damaged" in capsys.readouterr().err
        # Some bytes mean nothing, as those between two blocks; then all the values are right.
        assert (step, float(variable[0]), told) in {(10, 1.0, True), (20, 2.0, False)}, name
        fell_back += told
    assert fell_back > 10


def test_a_run_with_the_earlier_name_of_its_checkpoints(tmp_path):
    """Broken if a run whose checkpoints lie in `checkpoints`, as they did, starts again or is split."""
    variable, checkpoints = saved(tmp_path)
    assert checkpoints.folder == tmp_path / "saved"
    checkpoints.folder.rename(tmp_path / "checkpoints")
    again = common.Checkpoints(tmp_path, [variable])
    assert again.restore() == 20
    again.save(30)
    assert again.names() == ["step_00000020", "step_00000030"]
    assert (tmp_path / "checkpoints" / "step_00000030").is_dir() and not (tmp_path / "saved").exists()


def test_no_whole_checkpoint(tmp_path, capsys):
    """Broken if a run whose checkpoints are all spoilt starts again from nothing."""
    _, checkpoints = saved(tmp_path)
    for name in checkpoints.names():
        (checkpoints.folder / name / "state.index").write_text("")
    with pytest.raises(common.UserError, match="no whole checkpoint"):
        checkpoints.restore()
    shutil.rmtree(checkpoints.folder)
    (tmp_path / "losses.csv").write_text("epoch,step\n")
    with pytest.raises(common.UserError, match="no whole checkpoint"):
        checkpoints.restore()
    capsys.readouterr()


def test_going_on_from_the_one_before(tmp_path):
    """Broken if a checkpoint that replaces a damaged one of the same step is not kept."""
    variable, checkpoints = saved(tmp_path)
    (checkpoints.folder / "step_00000020" / "state.index").write_text("")
    assert checkpoints.restore() == 10
    checkpoints.save(15)
    assert checkpoints.names() == ["step_00000010", "step_00000015"], "the damaged one counts as a state"
    assert (checkpoints.folder / "damaged_step_00000020").exists(), "it may be of use to someone"
    variable.assign(tf.fill((50,), 3.0))
    checkpoints.save(20)
    assert (checkpoints.restore(), float(variable[0])) == (20, 3.0)


def test_rows_before_the_first_checkpoint_are_taken_back(tmp_path):
    """Broken if rows of a run that was killed before its first epoch's end stand there twice."""
    checkpoints = common.Checkpoints(tmp_path, [tf.Variable(0.0)])
    checkpoints.restore()
    checkpoints.tables[0].append({"epoch": 1, "step": 10})
    again = common.Checkpoints(tmp_path, [tf.Variable(0.0)])
    assert again.restore() == 0
    assert not (tmp_path / "losses.csv").exists() and again.tables[0].rows() == []


def test_a_checkpoint_of_other_networks_is_refused(tmp_path, capsys):
    """Broken if a run goes on with some variables of its checkpoint, and fresh values in the others."""
    saved(tmp_path)
    for shapes in ([50, 3], [49], []):
        other = common.Checkpoints(tmp_path, [tf.Variable(tf.zeros(shape)) for shape in shapes])
        with pytest.raises(common.UserError, match="no whole checkpoint"):
            other.restore()
        assert other.names() == ["step_00000010", "step_00000020"], "put aside, though they are sound"
    capsys.readouterr()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_not_a_number_is_not_saved(value, tmp_path):
    """Broken if weights that came apart replace the last good checkpoint."""
    variable, checkpoints = saved(tmp_path)
    variable.assign(tf.fill((50,), value))
    with pytest.raises(common.UserError, match="step 30: NaN or infinite: a weight.*step_00000020"):
        checkpoints.save(30)
    assert checkpoints.restore() == 20


@pytest.mark.slow
def test_not_a_number_in_a_loss(stage2, call_main, tmp_path, monkeypatch):
    """Broken if training goes on after a NaN, writes it down, or does not say where it was."""
    flags = ["--steps-per-epoch", "3", "--out", "run"]
    done = call_main("02_cgan_mnist.py", *flags, "--epochs", 1)
    assert done.returncode == 0
    monkeypatch.setattr(stage2, "generator_loss", lambda logits: tf.reduce_mean(logits) * float("nan"))
    done = call_main("02_cgan_mnist.py", *flags, "--epochs", 2)
    assert done.returncode == 2
    assert "steps 4 to 6: NaN or infinite: d_fake, d_real" in done.stderr
    assert "the last good checkpoint is step_00000003" in done.stderr
    assert len((tmp_path / "run" / "losses.csv").read_text().splitlines()) == 2
    assert sorted(p.name for p in (tmp_path / "run" / "saved").iterdir())[-1] == "step_00000003"


@pytest.mark.slow
@pytest.mark.linux
def test_signals(call_main, tmp_path):
    """Broken if a polite kill loses steps, or the run then ends in other numbers."""
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert call_main("01_gan_mnist.py", *FLAGS, "--out", whole).returncode == 0
    command = [sys.executable, HERE / "01_gan_mnist.py", *FLAGS, "--out", stopped]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not lines(stopped):
        time.sleep(0.01)
    process.terminate()  # Ctrl-C is tried on stage 5, in test_scripts.py
    words = process.communicate()[1]
    assert process.returncode == 143, words
    assert "Stopped and saved at step" in words and "Traceback" not in words
    last = lines(stopped)[-1].split(",")[1]
    assert (stopped / "saved" / f"step_{int(last):08d}").exists(), "not saved where it stopped"
    assert call_main("01_gan_mnist.py", *FLAGS, "--out", stopped).returncode == 0
    for file in ("losses.csv", "generator.weights.h5", "result.png"):
        assert (stopped / file).read_bytes() == (whole / file).read_bytes(), file


def lines(run):
    return (run / "losses.csv").read_text().splitlines() if (run / "losses.csv").exists() else []


def test_changed_flags_and_data(stage5, call_main, tmp_path, few_pairs, monkeypatch):
    """Broken if a run goes on under flags, or with data, that are not those it began with.

    Ctrl-C as soon as the run was taken: 130 for taken, 2 for refused.
    """
    data = tmp_path / "data"
    shutil.copytree(few_pairs, data)
    flags = {"--dataset": "data", "--steps-per-epoch": "1", "--epochs": "1", "--out": "run"}

    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(stage5, "Pix2Pix", interrupt)
    monkeypatch.setattr(stage5, "describe_conditions", lambda *_: {"kind": "sketch"})  # which takes long

    def train(**changed):
        now = flags | {f"--{name.replace('_', '-')}": value for name, value in changed.items()}
        return call_main("05_pix2pix_train.py", *[word for pair in now.items() for word in pair])

    assert train().returncode == 130
    before = (tmp_path / "run" / "options.json").read_bytes()
    changes = {
        "seed": ("0", "1"),
        "batch_size": ("1", "2"),
        "loss": ("l1+cgan", "cgan"),
        "lambda_l1": ("100.0", "10.0"),
        "direction": ("AtoB", "BtoA"),
        "augment": ("jitter", "none"),
        "precision": ("float32", "mixed_bfloat16"),
        "dataset": ("data", "openmoji"),
        "steps_per_epoch": ("1", "2"),
    }
    for name, (old, new) in changes.items():
        done = train(**{name: new})
        assert done.returncode == 2
        assert f"--{name.replace('_', '-')} {old} -> {new}" in done.stderr
    train_folder = data / "train"
    first, second, *_ = sorted(train_folder.iterdir())
    first.write_bytes(second.read_bytes())  # as many files, of the same names
    done = train()
    assert done.returncode == 2 and "contents of the data" in done.stderr
    first.unlink()
    done = train()
    assert done.returncode == 2 and "train 4 -> 3" in done.stderr
    shutil.copytree(few_pairs, tmp_path / "moved")
    assert (tmp_path / "run" / "options.json").read_bytes() == before
    assert train(dataset="moved").returncode == 130, "the same data in another place are the same"


@pytest.mark.slow
def test_one_process_a_run(tmp_path, call_main):
    """Broken if two processes train in one folder, or a dead one keeps the living out."""
    holder = "import pathlib, sys, common; common.lock(pathlib.Path(sys.argv[1])); print(flush=True); input()"
    run = tmp_path / "run"
    run.mkdir()
    command = [sys.executable, "-c", holder, run]
    process = subprocess.Popen(command, cwd=HERE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    process.stdout.readline()
    flags = ["--steps-per-epoch", 1, "--epochs", 1, "--out", run]
    for extra in ([], ["--fresh"]):
        done = call_main("01_gan_mnist.py", *flags, *extra)
        assert done.returncode == 2 and "another process is at work in it" in done.stderr
    process.kill()
    process.wait()
    assert (run / ".lock").exists()
    assert call_main("01_gan_mnist.py", *flags).returncode == 0


@pytest.mark.slow
def test_fresh_behind_a_link(call_main, tmp_path):
    """Broken if --fresh moves a link instead of the run, which may lie on another disk for its size."""
    (tmp_path / "big").mkdir()
    (tmp_path / "run").symlink_to("big/run")
    flags = ["--steps-per-epoch", 1, "--epochs", 1, "--out", "run"]
    (tmp_path / "big" / "run").mkdir()
    for extra in ([], ["--fresh"]):
        assert call_main("01_gan_mnist.py", *flags, *extra).returncode == 0
    other = "import pathlib, common; common.lock(pathlib.Path(input()))"  # the new run is locked, too
    command = [sys.executable, "-c", other]
    locked = subprocess.run(
        command, cwd=HERE, input=f"{tmp_path}/run", capture_output=True, text=True, check=False
    )
    assert "another process is at work" in locked.stderr
    assert (tmp_path / "run").is_symlink()
    assert {path.name for path in (tmp_path / "big").iterdir()} == {"run", "run.1"}
    assert (tmp_path / "big" / "run.1" / "losses.csv").exists()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"flags": 3}', '{"flags": [], "data": {}}'])
def test_damaged_options(content, call_main, tmp_path):
    """Broken if an options.json that cannot be read ends in a traceback or a fresh start."""
    (tmp_path / "options.json").write_text(content)
    done = call_main("01_gan_mnist.py", "--out", tmp_path)
    assert done.returncode == 2 and "options.json: damaged" in done.stderr
    assert (tmp_path / "options.json").read_text() == content


def spoilt(text):
    """What becomes of a table: by a kill, a spreadsheet, an editor or a slip."""
    header, first, *rest = text.splitlines(keepends=True)
    yield "rows beyond the checkpoint", text + first.replace("1,", "2,", 1)
    yield "a last row cut in writing", text + first[:7]
    yield "a row of junk", header + "junk\n" + first + "".join(rest)
    yield "a blank line", header + "\n" + first + "".join(rest)
    yield "a byte order mark", "\ufeff" + text
    yield "another header", "a,b\n1,2\n"
    yield "emptied", ""
    yield "gone", None


def test_a_table_goes_back_with_its_checkpoint(tmp_path):
    """Broken if a spoilt table costs a row, an epoch, or the whole run: the checkpoint has its text."""
    checkpoints = common.Checkpoints(tmp_path, [tf.Variable(0.0)])
    checkpoints.restore()
    losses, metrics = checkpoints.tables
    losses.append({"epoch": 1, "step": 10, "d_real": 0.25})
    losses.append({"epoch": 1, "step": 20, "d_real": 0.5})
    metrics.append({"epoch": 1, "val_l1": 0.125})
    checkpoints.save(20)
    text = losses.path.read_text()
    assert text == "epoch,step,d_real\n1,10,0.250000\n1,20,0.500000\n"
    for name, content in spoilt(text):
        losses.path.unlink() if content is None else losses.path.write_text(content)
        again = common.Checkpoints(tmp_path, [tf.Variable(0.0)])
        assert again.restore() == 20
        assert losses.path.read_text() == text, name
        assert again.tables[0].rows()[-1] == {"epoch": 1, "step": 20, "d_real": 0.5}, name
        assert again.tables[1].rows() == [{"epoch": 1, "val_l1": 0.125}], name


def test_tables_are_left_alone_when_no_checkpoint_is_whole(tmp_path, capsys):
    """Broken if reading damaged checkpoints cuts the tables that are all that is left of a run."""
    checkpoints = common.Checkpoints(tmp_path, [tf.Variable(tf.zeros(50))])
    checkpoints.restore()
    checkpoints.tables[0].append({"epoch": 1, "step": 10})
    text = checkpoints.tables[0].path.read_text()
    data = tmp_path / "saved" / "step_00000000" / "state.data-00000-of-00001"
    content = bytearray(data.read_bytes())
    content[content.index(bytes(40))] = 1  # in the variable's zeros: the table is read before it
    data.write_bytes(content)
    with pytest.raises(common.UserError, match="no whole checkpoint"):
        common.Checkpoints(tmp_path, [tf.Variable(tf.zeros(50))]).restore()
    assert checkpoints.tables[0].path.read_text() == text


@pytest.mark.parametrize(
    "error",
    [MemoryError(), tf.errors.ResourceExhaustedError(None, None, "OOM"), OSError(28, "No space left")],
)
def test_no_room_is_no_damage(error, tmp_path, monkeypatch):
    """Broken if a sound checkpoint is put aside because memory or disk was short while it was read."""
    _, checkpoints = saved(tmp_path)

    def read(prefix):
        raise error

    monkeypatch.setattr(checkpoints.checkpoint, "read", read)
    with pytest.raises(type(error)):
        checkpoints.restore()
    assert checkpoints.names() == ["step_00000010", "step_00000020"]
    assert "memory" in common.explain(error) or "disk is full" in common.explain(error)


@pytest.mark.linux
def test_a_checkpoint_alone_is_flushed(tmp_path, monkeypatch):
    """Broken if a power cut can leave a checkpoint's name without its contents, or if saving one
    waits until all that this machine writes has reached the disk.
    """
    checkpoints = common.Checkpoints(tmp_path, [tf.Variable(tf.zeros(50))])
    checkpoints.restore()
    flushed, all_flushed, flush = [], [], os.fsync

    def note(file):
        flushed.append((os.fstat(file).st_ino, (checkpoints.folder / "step_00000010").exists()))
        flush(file)

    monkeypatch.setattr(os, "fsync", note)
    monkeypatch.setattr(os, "sync", lambda: all_flushed.append(True))
    checkpoints.save(10)
    assert not all_flushed
    folder = checkpoints.folder / "step_00000010"
    contents = {path.stat().st_ino for path in [folder, *folder.iterdir()]}
    assert {number for number, has_name in flushed if not has_name} == contents and len(contents) == 3
    assert [number for number, has_name in flushed if has_name] == [folder.parent.stat().st_ino]


@pytest.mark.slow
@pytest.mark.linux
def test_brackets_in_the_path(call_main, tmp_path):
    """Broken if a run whose path TensorFlow takes for a pattern is called damaged."""
    (tmp_path / "a [1] b*").mkdir()
    out = ["--steps-per-epoch", 1, "--out", "a [1] b*/run?[x]"]
    for epochs in (1, 2):
        done = call_main("01_gan_mnist.py", *out, "--epochs", epochs)
        assert done.returncode == 0, done.stderr
        assert "damaged" not in done.stderr
    assert "goes on after step 1 " in done.stdout


@pytest.mark.slow
def test_fresh_in_the_current_folder(call_main, tmp_path, monkeypatch):
    """Broken if `--out . --fresh` announces a new start and goes on with the old run."""
    run = tmp_path / "here"
    run.mkdir()
    flags = ["--steps-per-epoch", 1, "--epochs", 1, "--out", "."]
    monkeypatch.setattr(monkeypatch, "chdir", lambda path: os.chdir(run))  # call_main's, to tmp_path
    for extra in ([], ["--fresh"]):
        done = call_main("01_gan_mnist.py", *flags, *extra)
        assert done.returncode == 0, done.stderr
    assert "Starting over" in done.stdout and "has its 1 epochs" not in done.stdout
    assert (run / "losses.csv").exists() and (tmp_path / "here.1" / "losses.csv").exists()


def test_a_run_of_an_older_version(call_main, tmp_path):
    """Broken if a run whose checkpoints lack the tables is called damaged, or taken."""
    (tmp_path / "run").mkdir()
    old = {"flags": {"--seed": 0}, "data": {"script": "01_gan_mnist.py"}, "versions": {}}
    (tmp_path / "run" / "options.json").write_text(json.dumps(old))
    done = call_main("01_gan_mnist.py", "--out", "run")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert "run of another version of these scripts" in done.stderr and "--fresh" in done.stderr


@pytest.mark.slow
def test_rows_of_an_epoch_with_a_prime_number_of_steps(call_main, tmp_path):
    """Broken if small steps are taken one by one, with a row each, where 39 do not divide the epoch."""
    flags = ["--steps-per-epoch", 83, "--epochs", 1, "--out", "run"]
    assert call_main("01_gan_mnist.py", *flags).returncode == 0
    assert [line.split(",")[1] for line in lines(tmp_path / "run")[1:]] == ["39", "78", "83"]


@pytest.mark.slow
@pytest.mark.linux
@pytest.mark.parametrize("streams", ["| head -1", "2>&1 | head -1", "<&- >&- 2>&-"])
def test_output_that_nobody_reads(streams, tmp_path):
    """Broken if a training ends, or loses what it did, because its output was closed."""
    command = f"{sys.executable} {HERE / '01_gan_mnist.py'} --steps-per-epoch 2 --epochs 3 --out run"
    command += f"; echo $? >status) {streams}"
    done = subprocess.run(
        ["bash", "-c", f"({command}"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (tmp_path / "status").read_text() == "0\n", done.stderr
    assert "Traceback" not in done.stderr and "Broken pipe" not in done.stderr
    assert len(lines(tmp_path / "run")) == 4 and (tmp_path / "run" / "result.png").exists()


@pytest.mark.slow
def test_warnings_that_nobody_reads(tmp_path):
    """Broken if a script ends with its first warning after the reader of its errors has gone."""
    code = "import common; common.run_main(lambda: [common.warn(str(number)) for number in range(3)])"
    command = f"({sys.executable} -c '{code}'; echo $? >{tmp_path}/status) 2>&1 | true"
    subprocess.run(["bash", "-c", command], cwd=HERE, check=False)
    assert (tmp_path / "status").read_text() == "0\n"


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a file system of 8 MB of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no right to mount a small file system")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.slow
def test_full_disk(small_disk, call_main):
    """Broken if a full disk ends in a traceback, leaves pieces, or the run cannot go on after.

    The first checkpoint of stage 1 takes 14 MB.
    """
    flags = ["--steps-per-epoch", 1, "--epochs", 1, "--out", small_disk / "run"]
    done = call_main("01_gan_mnist.py", *flags)
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert "the disk is full: make room" in line
    assert "Traceback" not in done.stderr
    assert not list((small_disk / "run" / "saved").iterdir())
    subprocess.run(["mount", "-o", "remount,size=80m", small_disk], check=True)
    assert call_main("01_gan_mnist.py", *flags).returncode == 0
    assert json.loads((small_disk / "run" / "options.json").read_text())["flags"]["--epochs"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("room", [0, 1_000_000])
def test_disk_fills_up(room, small_disk, call_main):
    """Broken if a table, a figure or the weights on a full disk take the earlier ones along.

    With no room at all the table fails; with a little, the 2.3 MB of weights: HDF5 itself
    would end in a crash.
    """
    subprocess.run(["mount", "-o", "remount,size=80m", small_disk], check=True)
    run = small_disk / "run"
    flags = ["--steps-per-epoch", 1, "--out", run]
    assert call_main("01_gan_mnist.py", *flags, "--epochs", 1).returncode == 0
    kept = {name: (run / name).read_bytes() for name in ("result.png", "generator.weights.h5", "losses.csv")}
    (run / "result.png").unlink()  # room to be filled exactly
    with pytest.raises(OSError), (small_disk / "filler").open("wb", buffering=0) as filler:
        while True:
            filler.write(bytes(4096))
    os.truncate(small_disk / "filler", (small_disk / "filler").stat().st_size - room)
    done = call_main("01_gan_mnist.py", *flags, "--epochs", 2)
    assert done.returncode == 2 and "the disk is full" in done.stderr and "Traceback" not in done.stderr
    assert (run / "generator.weights.h5").read_bytes() == kept["generator.weights.h5"]
    (small_disk / "filler").unlink()
    assert call_main("01_gan_mnist.py", *flags, "--epochs", 2).returncode == 0
    assert (run / "losses.csv").read_bytes().startswith(kept["losses.csv"])
