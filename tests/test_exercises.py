"""The exercises: the scripts' code solves them; typical mistakes are explained by their cause."""

import ast
import importlib
import inspect
import sys
from pathlib import Path

import common

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "exercises"))
grade = importlib.import_module("grade")
FILES = sorted((HERE.parent / "exercises").glob("[1-5]_*.py"))
STAGES = [sorted(HERE.parent.glob(f"0{n}_*.py"))[0].stem for n in range(1, 6)]


def solve(file):
    """Returns an exercise's text with the scripts' own classes and functions in it."""
    text = file.read_text(encoding="utf-8")
    script = importlib.import_module(STAGES[int(file.name[0]) - 1])
    solved = text
    for node in ast.parse(text).body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            notes = ast.get_source_segment(text, node)
            code = getattr(script, node.name, None) or getattr(common, node.name)
            if "NotImplementedError" in notes:
                solved = solved.replace(notes, inspect.getsource(code).rstrip())
    assert "NotImplementedError(" not in solved
    return solved


@pytest.fixture
def told(tmp_path, request):
    """Runs an exercise's checks on code; returns the first line that says what is wrong."""

    def told(number, text, golden=False):
        path = tmp_path / "answer.py"
        path.write_text(text, encoding="utf-8")
        checks = importlib.import_module(f"check_{number}")
        tests = {name: f for name, f in vars(checks).items() if name.startswith("test_")}
        assert all(test.__doc__ for test in tests.values())
        for test in [f for name, f in tests.items() if ("golden" in name) == golden]:
            given = {"answer": grade.load(path)}
            for name in inspect.signature(test).parameters.keys() - given:
                given[name] = request.getfixturevalue(name)
            try:
                test(**given)
            except Exception as error:
                return grade.explain(error, path)
        return None

    return told


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_the_scripts_solve_the_exercises(file, told):
    """Broken if an exercise's checks reject the script's own code, which is a solution."""
    assert told(file.name[0], solve(file)) is None


@pytest.mark.slow
@pytest.mark.parametrize("file", [f for f in FILES if f.name[0] != "4"], ids=lambda file: file.name)
def test_the_scripts_have_the_golden_numbers(file, told):
    """Broken if the script's own code does not give the losses or draws of the golden files."""
    assert told(file.name[0], solve(file), golden=True) is None


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_untouched_exercises_say_what_comes_next(file, told):
    """Broken if grading an untouched exercise does not begin with a line on what to do."""
    assert told(file.name[0], file.read_text(encoding="utf-8")).startswith("next:  ")


MISTAKES = {  # exercise: a piece of the solution, what a learner writes instead, the message
    1: [
        ('layers.Dense(1, dtype="float32")', 'layers.Dense(1, activation="sigmoid")', "sigmoid"),
        ("        x = self.flatten(x)\n", "", "Is Flatten first?"),
        ("fake_logits, real=True", "fake_logits, real=False", "-log D(G(z)): fakes called real"),
        ('losses["d_real"] + losses["d_fake"]', 'losses["d_real"] - losses["d_fake"]', "d_loss is"),
        ("layers.Dense(128, activation", "layers.Dense(64, activation", "566,273"),
        ('activation="relu"', 'activation="sigmoid"', "need activation='relu'"),
        ('activation="relu"', "activation=None", "need activation='relu'"),
    ],
    2: [
        ("tf.reduce_max(x, axis=-1)", "tf.reduce_max(x, axis=1)", "over the pieces"),
        ("layers.Dense(units * pieces)", 'layers.Dense(units * pieces, "relu")', "a ReLU inside"),
        ("training=training)\n", "training=False)\n", "nothing is dropped"),
        (
            "        x = self.dropout(self.split(self.maps(x)), training=training)\n"
            "        return tf.reduce_max(x, axis=-1)",
            "        x = tf.reduce_max(self.split(self.maps(x)), axis=-1)\n"
            "        return self.dropout(x, training=training)",
            "before the maximum",
        ),
    ],
    3: [
        ("[side * 286 // 256 for side in size]", "list(size)", "never shifted"),
        ("resize(stack, enlarged, labels)", "resize(stack, enlarged)", "pass `labels` on"),
        ("stateless_random_flip_left_right", "stateless_random_flip_up_down", "none of the 40"),
        (
            "    return tf.image.stateless_random_flip_left_right(stack, flip_seed)",
            "    flip = tf.image.stateless_random_flip_left_right\n"
            "    return tf.concat([flip(stack[..., :3], flip_seed),"
            " flip(stack[..., 3:], crop_seed)], -1)",
            "moved apart",
        ),
        (
            "stateless_random_flip_left_right(stack, flip_seed)",
            "random_flip_left_right(stack)",
            "the same seed gives two different pictures",
        ),
    ],
    4: [
        ("training), skip]", "training)]", "decode_2 has 512 input channels; with its skip"),
        ("reversed(skips[:-1])", "skips[:-1]", "the skips come in reverse order"),
        ("        if self.norm:\n", "        if True:\n", "NoneType"),
        ('"use_bias": False', '"use_bias": True', "use_bias=False"),
        ("layers.concatenate([condition, picture])", "picture", "sees 3 channels"),
        ('"strides": 1, ', "", "strides=1"),
        ("filters, 4, strides, padding", 'filters, 4, 2, "same"', "pass `strides`"),
        ("=training)\n        x = self.last", "=False)\n        x = self.last", "` everywhere"),
        ("normalization(norm)", 'normalization("batch")', "With norm=None"),
    ],
    5: [
        ("self.lambda_l1 * losses", "losses", "lambda_l1 = 100 times g_l1"),
        ("(condition, fake, training", "(fake, condition, training", "comes first"),
        ("(fake_logits, real=True", "(real_logits, real=True", "the fake called real"),
        ("d_tape, self.discriminator,", "d_tape, self.generator,", "update each network once"),
        ("generator, self.generator_o", "generator, self.discriminator_o", "network's optimiser"),
    ],
}


@pytest.mark.parametrize(
    ("number", "right", "wrong", "cause"),
    [pytest.param(n, *rest, id=f"{n}-{rest[2]}") for n, rows in MISTAKES.items() for rest in rows],
)
def test_typical_mistakes_are_told(number, right, wrong, cause, told):
    """Broken if a learner who makes a typical mistake is not told its cause in one line."""
    text = solve(FILES[number - 1])
    assert right in text
    line = told(number, text.replace(right, wrong))
    assert line and line.startswith("wrong: ") and cause in line and "\n" not in line, line


@pytest.mark.slow
def test_grading_from_the_command_line(run_script, tmp_path):
    """Broken if grading from the command line ends in a traceback, or rejects a solution."""
    (tmp_path / "mine.py").write_text(solve(FILES[1]), encoding="utf-8")
    (tmp_path / "stop.py").write_text("raise KeyboardInterrupt", encoding="utf-8")
    cases = {(): (1, "next:  "), ("mine.py",): (0, "All of it is"), ("stop.py",): (1, "Not graded")}
    for files, (status, words) in cases.items():
        done = run_script("tests/exercises/grade.py", "2", *files)
        assert done.returncode == status and words in done.stdout
        assert "Traceback" not in done.stdout + done.stderr
