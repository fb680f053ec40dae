"""Stage 9: one page of results for a run of stage 5, or for several runs side by side.

Every generator colours the same conditions. Each row shows the condition, one picture per run,
and the real picture; scores and curves come first. The table also scores the condition itself,
as the baseline to beat.

    python 09_results.py                                  # of runs/05_pix2pix
    python 09_results.py runs/l1 runs/cgan runs/05_pix2pix
    python 09_results.py runs/mine --dataset my/folder --split test --best

Writes under runs/09_results, or --out: index.html (for a browser), compare.png (six rows of it)
and shown/. --animate adds samples.webp, the first run's sample pictures over the epochs as an
animation. It takes 5 s plus 0.1 s per picture.
"""

import html
import urllib.parse
from functools import partial
from pathlib import Path

import common
from common import generate, scores, validation_pairs

import tensorflow as tf
from PIL import Image, ImageDraw

SETTINGS = ["--loss", "--lambda-l1", "--generator", "--filters", "--norm", "--augment", "--seed"]
FRAME_MS = 400  # per frame of the animation; the last one stays five times as long

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
  :root {{ color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }}
  body {{ margin: 0 auto; padding: 1rem; max-width: 90rem }}
  img {{ max-width: 100%; height: auto; background: white }}
  td {{ min-width: 4.5em; padding: .1rem .8rem .1rem 0; overflow-wrap: anywhere }}
  .pairs {{ display: grid; grid: auto / repeat({columns}, minmax(0, max-content)); gap: 2px }}
  strong {{ position: sticky; top: 0; max-height: 4lh; overflow: clip; background: Canvas }}
  .name {{ grid-column: 1 / -1; margin: 1rem 0 0; overflow-wrap: anywhere }}
</style>
<h1>{title}</h1>
<h2>Scores</h2>
{scores}
<p>Means over all pairs; low L1, high PSNR and SSIM are better. The condition is the baseline.</p>
<h2>Curves</h2>{curves}
<h2>Pairs, the worst of the first run first</h2>
<div class="pairs">
{pairs}
</div>
<h2>What was run</h2>{options}
</html>
"""


def html_table(rows):
    """Returns rows of texts as an HTML table."""
    lines = ["".join(f"<td>{html.escape(str(cell))}" for cell in row) for row in rows]
    return "<table>\n<tr>" + "\n<tr>".join(lines) + "\n</table>"


def name_runs(runs, options):
    """Returns a name for each run: its folder, and the settings in which the runs differ."""
    flags = [run["flags"] for run in options]
    differing = [name for name in SETTINGS if len({str(run[name]) for run in flags}) > 1]
    settings = [", ".join(f"{name[2:]} {run[name]}" for name in differing) for run in flags]
    names = [run.name if len({r.name for r in runs}) == len(runs) else str(run) for run in runs]
    return [f"{name}: {text}" if text else name for name, text in zip(names, settings)]


def check_fit(runs, options, dataset, fingerprint):
    """Returns the direction of a dataset's pairs; warns of runs made with others, or refuses."""
    wanted = {}
    for run, other in zip(runs, options):
        flags, condition = other["flags"], other["data"]["condition"]
        same = {name: other["data"][name] for name in fingerprint} == fingerprint
        turn = flags["--direction"] if same else "exchanged" if "exchanged" in condition else None
        about = common.describe_dataset(dataset, turn)
        direction, colours = about["direction"], about.get("colours", ())
        side = "left" if direction == "AtoB" else "right"
        known = {"kind": about.get("condition"), "range": about.get("ranges", {}).get(side)}
        new = dict(colours).keys() - dict(condition.get("colours", colours)).keys()
        own = {"--size": flags["--size"], "--direction": direction, "palette": new}
        wanted = wanted or known | own | {"palette": set()}  # of label maps: no new colour
        for name, value in wanted.items():
            if value is not None and (condition | own).get(name) != value:
                raise common.UserError(f"{run}: not comparable on {dataset}: its {name} differs")
        if not same:
            common.warn(f"{run}: made with other pairs, maybe trained on these; shown {direction}")
    return wanted["--direction"]


def colour_pairs(generators, pairs, names, folder):
    """Writes all pictures as PNG, and scores them.

    `generators` are {name of its folder in `folder`: generator}; `pairs` is a dataset of
    (condition, real), each (1, height, width, 3) in [-1, 1], and `names` those of their files.
    Returns the scores of each pair, {"condition" or the generator's name: {score: value}}.
    """
    colour = {key: tf.function(partial(generate, network)) for key, network in generators.items()}
    table = []
    for name, (condition, real) in zip(names, pairs):
        drawn = {"condition": condition} | {key: draw(condition) for key, draw in colour.items()}
        for kind, picture in (drawn | {"real": real}).items():
            (folder / kind).mkdir(parents=True, exist_ok=True)
            common.to_image(picture).save(folder / kind / f"{name}.png")
        table.append({kind: scores(picture, real) for kind, picture in drawn.items()})
    return table


def write_page(path, named, files, table, *, options, where):
    """Writes the page; the curves and pictures that it shows are in the same folder.

    `named` is {"run_1": the run's name, ...}, `files` a name for each pair, `table` its scores, as
    `colour_pairs` returns them, `options` the runs' options.json, `where` says which pairs.
    """
    columns = {"condition": "condition"} | named | {"real": "real"}
    figures = [f"<strong>{html.escape(name)}</strong>" for name in columns.values()]
    for file, scored in sorted(zip(files, table), key=lambda item: -item[1]["run_1"]["l1"]):
        l1 = ", ".join(f"{scored[key]['l1']:.4f}" for key in named)
        figures.append(f'<p class="name">{html.escape(file)}: L1 {l1}</p>')
        for kind, name in columns.items():
            source = urllib.parse.quote(f"shown/{kind}/{file}.png")
            figures.append(f'<img src="{source}" alt="{html.escape(name)}" loading="lazy">')
    rows = [["", *(score.upper() for score in table[0]["condition"])]]
    for kind, name in ({"condition": "the condition itself"} | named).items():
        means = common.mean_scores([scored[kind] for scored in table], "").values()
        rows.append([name, *(f"{value:.4f}" for value in means)])
    facts = [run["flags"] | run["data"] for run in options]
    settings = [[name, *(fact.get(name, "") for fact in facts)] for name in facts[0]]
    curves = [f'{html.escape(n)}<br><img src="shown/{key}.png">' for key, n in named.items()]
    page = PAGE.format(
        title=html.escape(f"Results on {where}"),
        columns=len(columns),
        scores=html_table(rows),
        curves="\n".join(curves),
        pairs="\n".join(figures),
        options=html_table([["", *named.values()], *settings]),
    )
    with common.replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def animate(folder, path):
    """Writes the sample pictures of a run as an animated WebP, each with its epoch."""
    if not (files := sorted(folder.glob(f"epoch_{4 * '[0-9]'}.png"))):
        raise common.UserError(f"--animate: no sample pictures in {folder}")
    frames = [Image.open(file).convert("RGB") for file in files]
    for file, frame in zip(files, frames):
        ImageDraw.Draw(frame).text((8, 4), f"epoch {int(file.stem[6:])}", "black", font_size=20)
    times = [FRAME_MS] * (len(frames) - 1) + [5 * FRAME_MS]
    with common.replacing(path) as temporary:
        frames[0].save(temporary, "WEBP", append_images=frames[1:], duration=times, save_all=True)


def main(argv=None):
    parser = common.parser_of(__doc__, "--out --best", out="runs/09_results")
    add, run = parser.add_argument, Path("runs", "05_pix2pix")
    add("runs", type=Path, nargs="*", default=[run], metavar="RUN", help=f"of stage 5 ({run})")
    add("--dataset", metavar="NAME|DIR", help="pairs to show (the first run's)")
    add("--split", default="val", choices=["train", "val", "test"], help="which split (val)")
    add("--animate", action="store_true", help="also write samples.webp: the first run's samples")
    args = parser.parse_args(argv)
    runs, options = args.runs, [common.read_options(run) for run in args.runs]
    dataset = args.dataset or options[0]["flags"]["--dataset"]
    pairs = common.find_pairs(dataset)
    direction = check_fit(runs, options, dataset, common.fingerprint(pairs["train"] + pairs["val"]))
    named = {f"run_{n}": name for n, name in enumerate(name_runs(runs, options), start=1)}
    generators = {key: common.load_generator(run, args.best)[0] for key, run in zip(named, runs)}
    flags, condition = options[0]["flags"], options[0]["data"]["condition"]
    paths = pairs.get(args.split, pairs["val"])  # those of test/, if there is no val/
    if args.split != "val" and args.split not in Path(paths[0]).parent.name.lower():
        raise common.UserError(f"--split {args.split}: {dataset} has no such split")
    files = [Path(path).name for path in paths]
    common.refuse_unusable(paths)
    form = {"size": tuple(flags["--size"]), "labels": condition["kind"] == "labels"}
    args.out.mkdir(parents=True, exist_ok=True)
    with common.replacing(args.out / "shown") as folder:  # all of them, or those of before
        table = colour_pairs(generators, validation_pairs(paths, direction, **form), files, folder)
        for key, run in zip(named, runs):
            (folder / f"{key}.png").write_bytes((run / "losses.png").read_bytes())
    title = f"{dataset}, {args.split}: {len(paths)} pairs"
    write_page(args.out / "index.html", named, files, table, options=options, where=title)
    shown = validation_pairs(common.spread(paths, 6), direction, **form)
    rows = [[c[0], *(generate(net, c)[0] for net in generators.values()), r[0]] for c, r in shown]
    means = [common.mean_scores([row[key] for row in table], "") for key in named]
    names = [name.replace(": ", "\n").replace(", ", "\n") for name in named.values()]
    titles = [f"{n}\nL1 {m['l1']:.3f}, SSIM {m['ssim']:.3f}" for n, m in zip(names, means)]
    common.save_grid(args.out / "compare.png", rows, titles=[condition["kind"], *titles, "real"])
    print(f"{args.out / 'index.html'}  all of it on one page, for a browser")
    print(f"{args.out / 'compare.png'}  {len(rows)} pairs of {len(paths)}")
    if args.animate:
        animate(runs[0] / "samples", args.out / "samples.webp")
        print(f"{args.out / 'samples.webp'}  the samples of {runs[0]}, epoch by epoch: animated")


if __name__ == "__main__":
    common.run_main(main)
