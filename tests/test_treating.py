"""Small pieces of stages 6 to 8 by hand: sizes, colours and memory of pictures, splits, who is served."""

import csv
import importlib
import re
import types
from pathlib import Path

import common

import pytest
import tensorflow as tf
from PIL import Image
from test_sketch_pad import SHEET, SmallUNet, ask, serving


def save(image, path, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
    return str(path)


# === Stage 6: files =========================================================


@pytest.mark.parametrize(
    "size, wanted",
    [
        ((256, 256), (256, 256)),
        ((1000, 1000), (256, 256)),
        ((800, 400), (512, 256)),
        ((300, 600), (256, 512)),
        ((10, 1000), (41, 4096)),  # no more than 16 times; 10 / 1000 of 4096
    ],
)
def test_results_have_their_files_proportions(size, wanted, stage6):
    """Broken if a wide file comes back as a square, or its sides are exchanged: (width, height)."""
    picture = tf.random.stateless_uniform((1, 256, 256, 3), (0, 0), -1.0, 1.0)
    result = stage6.to_proportions(picture, size)
    assert result.shape == (1, wanted[1], wanted[0], 3)
    assert float(tf.reduce_max(tf.abs(result))) <= 1.0, "bicubic overshoots"
    assert wanted != (256, 256) or bool(tf.reduce_all(result == picture))


def test_sizes_of_the_pad_by_hand(stage6):
    """Broken if a sketch is made larger while its paper is looked for, or a pen has another size's width."""
    assert stage6.limit_size(tf.zeros((300, 200, 3))).shape == (300, 200, 3)
    assert stage6.limit_size(tf.zeros((1024, 256, 3))).shape == (512, 128, 3)
    assert stage6.limit_size(tf.zeros((2000, 1, 3)), 1000).shape == (1000, 1, 3)
    assert stage6.of_256((256, 256)) == 1.0 and stage6.of_256((512, 512)) == 0.5
    assert stage6.of_256((1024, 256)) == 0.5


def test_memory_of_a_whole_picture_by_hand(stage6, tmp_path):
    """Broken if --whole reckons with the file's pixels, and not with those up to the next 256, or with both
    halves of a pair.

    300x200 is padded to 512x256, and its half to 256x256: 1 GB and (150 + 6 filters) bytes a pixel.
    """
    path = save(Image.new("L", (300, 200)), tmp_path / "a.png")
    assert stage6.whole_memory(path, 64, half=False) == 10**9 + 512 * 256 * (150 + 6 * 64)
    assert stage6.whole_memory(path, 32, half=True) == 10**9 + 256 * 256 * (150 + 6 * 32)


def test_distance_of_colours_by_hand(stage6):
    """Broken if an unknown colour is not told, or JPEG's shades of a known one are."""
    picture = tf.constant([[[255, 0, 0], [250, 40, 0], [0, 0, 255]]], tf.uint8)
    assert [float(d) for d in stage6.distance(picture, "#ff0000")[0]] == [0.0, 40.0, 255.0]


def test_unknown_colours_are_told(stage6, tmp_path, capsys):
    """Broken if a label map in a stranger's colours is coloured without a word, or a known one with one."""
    legend = [["#ff0000", "car"], ["#000000", "road"]]
    labels = {"kind": "labels", "size": (256, 256), "line_width": None, "colours": legend}
    image = Image.new("RGB", (300, 300), (255, 0, 0))
    image.paste((230, 20, 20), (0, 0, 300, 30))  # as JPEG makes it
    path = save(image, tmp_path / "map.png")
    stage6.read_condition(path, labels, as_is=False)
    assert not capsys.readouterr().err
    image.paste((0, 0, 255), (0, 0, 300, 30))
    stage6.read_condition(save(image, tmp_path / "map.png"), labels, as_is=False)
    assert "10% of it has no colour of the label maps" in capsys.readouterr().err
    with pytest.raises(common.UnreadableError, match="class numbers, where the run knows colours"):
        stage6.read_condition(save(Image.new("L", (9, 9), 3), tmp_path / "n.png"), labels, as_is=False)


def test_thin_lines_become_as_wide_as_the_runs(stage6):
    """Broken if thin lines stay thin, wide ones become wider, or a larger page counts other pixels."""
    for side, pen in ((256, 3), (512, 6)):
        line = tf.where(tf.abs(tf.range(float(side)) - side / 2 - 16) < pen / 2, 0.0, 1.0)
        page = tf.broadcast_to(line[tf.newaxis], (side, side))[..., tf.newaxis]
        widened = stage6.thicken(page, line_width=9.0)
        assert common.line_width([widened]) == pytest.approx(9.0 * side / 256, rel=0.15)
        assert bool(tf.reduce_all(stage6.thicken(page, line_width=4.0) == page)), "wide enough"


def test_as_is_and_pictures_are_not_cleaned(stage6):
    """Broken if gray paper stays gray that should be cleaned, or a photograph loses its grays."""
    gray = tf.fill((256, 256, 3), tf.constant(128, tf.uint8))
    sketch = {"kind": "sketch", "size": (256, 256), "line_width": 7.0, "colours": []}
    wanted = {(True, "sketch"): 128 / 127.5 - 1, (False, "sketch"): 1.0, (False, "picture"): 128 / 127.5 - 1}
    for (as_is, kind), value in wanted.items():
        sheet = stage6.treat(gray, sketch | {"kind": kind}, as_is)
        assert sheet.shape == (1, 256, 256, 3)
        assert float(tf.reduce_max(tf.abs(sheet - value))) < 1e-5, (as_is, kind)


@pytest.mark.parametrize("direction, colour", [("AtoB", 10), ("BtoA", 200)])
def test_the_half_that_a_run_colours(direction, colour, stage6, tmp_path):
    """Broken if --pairs takes the target for the condition, or tells the size of both halves together."""
    pair = Image.new("L", (60, 20), 10)
    pair.paste(200, (30, 0, 60, 20))
    path = save(pair, tmp_path / "pair.png")
    picture = {"kind": "picture", "size": (256, 256), "line_width": None, "colours": []}
    condition, size = stage6.read_half(path, picture, direction)
    assert size == (30, 20) and condition.shape == (1, 256, 256, 3)
    assert float(tf.reduce_max(tf.abs(condition - (colour / 127.5 - 1)))) < 1e-4
    whole, _ = stage6.read_half(path, picture, direction, whole=True)
    assert whole.shape == (1, 20, 30, 3)
    (tmp_path / "bad.png").write_text("no picture")
    with pytest.raises(common.UnreadableError, match="not PNG or JPEG"):
        stage6.read_half(str(tmp_path / "bad.png"), picture, direction)


# === Stage 6: who is served =================================================


@pytest.fixture
def pad(stage6):
    """A pad whose network gives back the sheet, and notes whether others could be at it."""
    locked = []

    def colour(sheet, seed):
        locked.append((pad.network.locked(), seed))
        return sheet

    condition = {"kind": "sketch", "size": (256, 256), "line_width": 7.0, "colours": []}
    run = stage6.Run("run", colour, {"--dataset": "openmoji", "--direction": "AtoB"}, condition)
    with serving(stage6.Pad([run, run._replace(folder="other")])) as pad:
        pad.locked = locked
        yield pad


def test_only_this_computer_is_served(pad):
    """Broken if others on the network can reach the pad."""
    assert pad.server_address[0] == "127.0.0.1"
    assert pad.address == f"http://127.0.0.1:{pad.server_port}/{pad.secret}/"


def test_secrets_are_long_and_new(stage6, pad):
    """Broken if the secret can be guessed: 24 random bytes are 32 letters, others for each pad."""
    assert len(pad.secret) == 32 and re.fullmatch("[A-Za-z0-9_-]+", pad.secret)
    other = stage6.Pad(pad.runs)
    other.server_close()
    assert other.secret != pad.secret


def test_every_answer_has_the_headers_that_protect_it(pad, stage6):
    """Broken if an answer, a refusal too, can be framed, stored, taken for a script or read elsewhere."""
    wanted = {
        "X-Frame-Options": "DENY",
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "no-store",
        "Referrer-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
    }
    for status, answer in (
        (200, ask(pad, "")),
        (200, ask(pad, "colour", SHEET)),
        (403, ask(pad, "", secret="wrong")),
        (404, ask(pad, "nothing")),
    ):
        assert answer[0] == status
        assert {name: answer[1][name] for name in wanted} == wanted
        assert answer[1]["Content-Length"] == str(len(answer[2]))


def test_one_picture_at_a_time(pad):
    """Broken if two requests compute at once, which takes the memory of both."""
    assert ask(pad, "colour?seed=5", SHEET)[0] == 200
    assert pad.locked == [(True, 5)] and not pad.network.locked()


def test_a_sheet_comes_back_as_it_was_sent(pad):
    """Broken if the pad changes a sheet on the way to the network, or a picture on the way back."""
    _, headers, body = ask(pad, "colour", SHEET)
    assert headers["Content-Type"] == "image/png"
    assert bool(tf.reduce_all(common.decode_data(body) == common.decode_data(SHEET)))


def test_numbers_of_a_query_are_bounded(pad):
    """Broken if a run that is not there is asked for, or a number of any length is taken."""
    assert ask(pad, "colour?run=1", SHEET)[0] == 200 and ask(pad, "colour?run=2", SHEET)[0] == 400
    assert ask(pad, "colour?seed=999999999", SHEET)[0] == 200
    for wrong in ("1000000000", "1.0", "x", "", "%201"):
        assert ask(pad, f"colour?seed={wrong}&run=0", SHEET)[0] == (200 if wrong == "" else 400), wrong


def test_bodies_and_pictures_up_to_the_bound(pad, stage6, monkeypatch):
    """Broken if the bound of a body or of a picture is another one than is told, by a byte or a pixel."""
    monkeypatch.setattr(stage6, "MAX_BODY", len(SHEET))
    assert ask(pad, "colour", SHEET)[0] == 200 and ask(pad, "colour", SHEET + b"x")[0] == 413
    monkeypatch.setattr(common, "MAX_PIXELS", 256 * 256)
    assert ask(pad, "colour", SHEET)[0] == 200
    monkeypatch.setattr(common, "MAX_PIXELS", 256 * 256 - 1)
    assert ask(pad, "colour", SHEET)[0] == ask(pad, "open", SHEET)[0] == 413


def test_other_formats_are_not_opened(pad, tmp_path):
    """Broken if the pad gives Pillow's many readers what a stranger has sent: PNG and JPEG are enough."""
    for form, status in (("PNG", 200), ("JPEG", 200), ("BMP", 415), ("GIF", 415), ("TIFF", 415)):
        path = tmp_path / f"picture.{form}"
        Image.new("RGB", (256, 256), "red").save(path, form)
        assert ask(pad, "open", path.read_bytes())[0] == status, form


# === Stage 7 ================================================================


def test_waiting_between_tries(stage7, monkeypatch, tmp_path):
    """Broken if a server that is down is asked without a pause, or for ever: 1, 2, 4 and 8 seconds."""
    pauses = []
    monkeypatch.setattr(stage7.time, "sleep", pauses.append)
    monkeypatch.setattr(stage7, "request", lambda url, output: "refused")
    with pytest.raises(common.UserError, match="refused; run the command again"):
        stage7.fetch("http://x", tmp_path / "part")
    assert pauses == [1.0, 2.0, 4.0, 8.0] and not (tmp_path / "part").exists()

    answers = ["cut", "down", "down", "cut", ""]

    def request(url, output):
        answer = answers.pop(0)
        if answer != "down":
            output.write(b"some")
        return answer

    pauses.clear()
    monkeypatch.setattr(stage7, "request", request)
    stage7.fetch("http://x", tmp_path / "part")
    assert pauses == [1.0, 2.0, 4.0, 1.0], "counted from the last request that brought something"


def test_colours_far_from_each_other_by_hand(stage7):
    """Broken if a new class' colour is near another's: black and white are the first."""
    assert stage7.far_colours(2) == ["#000000", "#ffffff"]
    assert len(set(stage7.far_colours(250))) == 250
    assert stage7.far_colours(1, taken=["#000000"]) == ["#ffffff"]
    assert not set(stage7.far_colours(200, taken=["#336699"])) & {"#336699"}


def test_new_classes_get_colours_far_from_the_given(stage7, tmp_path):
    """Broken if a class without a colour of its own gets one that another class has, or nearly."""
    image = Image.new("L", (8, 8))
    image.paste(1, (2, 0, 8, 8))
    image.paste(9, (5, 0, 8, 8))
    paths = {"a": save(image, tmp_path / "a.png")}
    legend = stage7.make_legend(paths, {1: ("#000000", "sky"), 9: ("#ffffff", "snow")}, common.LeftOut())
    assert (legend.classes, legend.names) == ([0, 1, 9], ["", "sky", "snow"])
    first, *given = legend.colours
    assert given == ["#000000", "#ffffff"] and first not in given
    assert 100 < sum(bytes.fromhex(first[1:])) < 665
    legend = stage7.make_legend(paths, {}, common.LeftOut())
    assert legend.colours == stage7.far_colours(3) and legend.present == {"a": {0, 1, 9}}


def test_a_dataset_appears_when_it_is_complete(stage7, tmp_path):
    """Broken if a dataset has its name while it is being made: a killed process would leave half of one."""
    out = tmp_path / "mine"
    with pytest.raises(RuntimeError), stage7.new_dataset(out, {}) as folder:
        (folder / "half").touch()
        assert not out.exists()
        raise RuntimeError
    assert not list(tmp_path.iterdir())
    with stage7.new_dataset(out, {"direction": "BtoA"}) as folder:
        (folder / "train").mkdir()
        assert not out.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    assert {path.name for path in out.iterdir()} == {"train", "dataset.json"}
    with pytest.raises(common.UserError, match="already exists"), stage7.new_dataset(out, {}):
        pass


@pytest.mark.parametrize("height, fits", [(100, True), (101, True), (102, True), (103, False), (97, False)])
def test_proportions_of_partners(height, fits, stage7, tmp_path):
    """Broken if halves that cannot show the same are squeezed into one size, or a rounding refuses a pair."""
    left = save(Image.new("L", (100, 100)), tmp_path / "left.png")
    right = save(Image.new("L", (200, 2 * height)), tmp_path / "right.png")
    if fits:
        assert stage7.size_of_pair(left, right, (256, 256)) == (100, 100)
        assert stage7.size_of_pair(right, left, (256, 256)) == (100, 100), "the smaller one's"
    else:
        with pytest.raises(common.UnreadableError, match="of other proportions"):
            stage7.size_of_pair(left, right, (256, 256))


def test_edges_by_hand(stage7):
    """Broken if a step of brightness is not drawn in black, or plain ground is not white.

    A step in the middle, blurred twice: the strongest edge is ink 1.5 - 0.5 = 1, black.
    """
    step = tf.repeat(tf.where(tf.range(40) < 20, 50, 200)[tf.newaxis, :, tf.newaxis], 30, axis=0)
    sketch = stage7.draw_edges(tf.cast(tf.repeat(step, 3, axis=-1), tf.uint8))
    assert sketch.shape == (30, 40, 3) and sketch.dtype == tf.uint8
    row = [int(value) for value in sketch[15, :, 0]]
    assert min(row[18:22]) == 0 and set(row[:15] + row[25:]) == {255} and row[:20] == row[20:][::-1]


def test_a_photograph_is_no_label_map(stage7, tmp_path):
    """Broken if a photograph, or labels saved as JPEG, become hundreds of classes."""
    few = Image.new("RGB", (64, 64))
    few.putdata([(n % 256, 0, 0) for n in range(64 * 64)])
    many = Image.new("RGB", (64, 64))
    many.putdata([(n % 256, n // 256, 0) for n in range(64 * 64)])
    classes, is_colours, problem = stage7.find_classes(save(few, tmp_path / "few.png"), by_number=False)
    assert len(classes) == 256 and is_colours and not problem
    classes, _, problem = stage7.find_classes(save(many, tmp_path / "many.png"), by_number=False)
    assert classes == set() and "more than 256 colours" in problem
    deep = Image.new("I;16", (64, 64))
    deep.putdata(list(range(64 * 64)))
    _, _, problem = stage7.find_classes(save(deep, tmp_path / "deep.png"), by_number=False)
    assert "more than 256 colours" in problem


def test_cityscapes_classes_have_their_names(call_main, tmp_path):
    """Broken if the legend of Cityscapes calls a road by another name, or counts pictures wrong."""
    for split, colours in (
        ("train", ((128, 64, 128), (0, 0, 142))),
        ("val", ((128, 64, 128), (70, 130, 180))),
    ):
        for kind, end in (("leftImg8bit", "leftImg8bit"), ("gtFine", "gtFine_color")):
            image = Image.new("RGB", (64, 32), colours[0])
            image.paste(colours[1], (32, 0, 64, 32))
            save(image, tmp_path / "licensed" / kind / split / "ulm" / f"ulm_{split}_{end}.png")
    done = call_main("07_get_pairs.py", "--import-cityscapes", "licensed", "--out", "city")
    assert done.returncode == 0, done.stderr
    about = common.describe_dataset(tmp_path / "city")
    assert (about["direction"], about["condition"]) == ("BtoA", "labels")
    assert about["colours"] == [["#00008e", "car"], ["#4682b4", "sky"], ["#804080", "road"]]
    with (tmp_path / "city" / "labels.csv").open(newline="") as file:
        rows = {row["name"]: row["pictures"] for row in csv.DictReader(file)}
    assert rows == {"car": "1", "sky": "1", "road": "2"}


def test_the_share_of_validation_pairs(stage7, tmp_path):
    """Broken if val/ has another share of the pairs than asked for, or a pair is in both, or in none."""
    picture = tf.zeros((2, 2, 3), tf.uint8)
    names = {f"{n:02}": tmp_path / f"{n:02}.png" for n in range(10)}
    for share, seed, count in ((None, None, 2), (0.5, 1, 5), (0.11, 2, 1)):
        folder = tmp_path / f"{share}"
        folder.mkdir()
        args = types.SimpleNamespace(val_share=share, seed=seed)
        written = stage7.write_splits(folder, names, lambda name: (picture, picture), args, common.LeftOut())
        train, val = ({path.stem for path in (folder / split).iterdir()} for split in ("train", "val"))
        assert len(val) == count and train | val == set(names) == set(written) and not train & val


# === Stage 8 ================================================================


@pytest.mark.parametrize("error, taken", [(0.009, True), (0.011, False), (float("nan"), False)])
def test_an_export_that_draws_another_picture_is_refused(error, taken, stage8, tmp_path, monkeypatch):
    """Broken if a network that differs by more than a shade, or draws nothing but NaN, gets its place."""
    monkeypatch.setattr(stage8, "generate", lambda generator, condition: condition)
    monkeypatch.setattr(stage8, "to_module", lambda generator, size: None)

    def write_files(module, folder):
        (folder / "written").write_text("")
        right = lambda condition: {"picture": condition}  # noqa: E731
        return {"SavedModel": right, "TFLite": lambda condition: {"picture": condition + error}}

    monkeypatch.setattr(stage8, "write_files", write_files)
    if taken:
        stage8.export(None, (256, 256), tmp_path / "new")
        assert (tmp_path / "new" / "written").exists()
    else:
        with pytest.raises(common.UserError, match="TFLite draws another picture"):
            stage8.export(None, (256, 256), tmp_path / "new")
    assert {path.name for path in tmp_path.iterdir()} == ({"new"} if taken else set())


@pytest.fixture
def stage8():

    return importlib.import_module("08_export")


def test_the_condition_that_exports_are_tried_with(stage8):
    """Broken if both formats are compared on a blank sheet, which says little, or at another size."""
    sheet = stage8.ring((256, 512))
    assert sheet.shape == (1, 256, 512, 3)
    assert float(sheet[0, 110, 220, 0]) == -1.0 == float(sheet[0, 30, 140, 0]), "80 from the middle"
    assert float(sheet[0, 110, 140, 0]) == 1.0 == float(sheet[0, 250, 500, 0])
    assert 0.01 < float(tf.reduce_mean(tf.cast(sheet < 0, tf.float32))) < 0.1


def test_dropout_of_an_export_is_that_of_generate(stage8):
    """Broken if the exported network drops other values than `generate`, which the scores are of."""
    common.keras.utils.set_random_seed(0)
    generator = SmallUNet()
    sketch = tf.random.stateless_uniform((1, 256, 256, 3), (0, 0), -1.0, 1.0)
    generator(sketch, training=False)
    wanted = common.generate(generator, sketch)
    stage8.fix_dropout(generator)
    fixed = common.generate(generator, sketch)
    assert float(tf.reduce_max(tf.abs(fixed - wanted))) < 1e-5
    assert float(tf.reduce_max(tf.abs(common.generate(generator, sketch, seed=1) - wanted))) < 1e-5


def test_nothing_is_left_of_an_earlier_export(stage8, tmp_path, monkeypatch):
    """Broken if files of an earlier export stay beside the new ones."""
    monkeypatch.setattr(stage8, "generate", lambda generator, condition: condition)
    monkeypatch.setattr(stage8, "to_module", lambda generator, size: None)
    monkeypatch.setattr(stage8, "write_files", lambda module, folder: {})
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "generator.tflite").write_text("earlier")
    stage8.export(None, (256, 256), tmp_path / "new")
    assert not list((tmp_path / "new").iterdir()) and [path.name for path in tmp_path.iterdir()] == ["new"]
    for force, message in ((False, "is there already"), (True, "holds other things")):
        (tmp_path / "new" / "thesis.txt").write_text("mine")
        with pytest.raises(common.UserError, match=message):
            stage8.refuse_taken(tmp_path / "new", force)
    stage8.refuse_taken(Path(tmp_path / "gone"), force=False)
