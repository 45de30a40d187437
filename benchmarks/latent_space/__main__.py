# SPDX-License-Identifier: Apache-2.0
"""Everything that docs/vae.md shows: `python -m benchmarks.latent_space [--minutes M] [--work FOLDER] [--out FOLDER]`.

Draws faces, trains autoencoders and VAEs on them and on handwritten digits, and writes figures, tables and numbers.
What is in the working folder is not made again: a second run makes the figures only.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from benchmarks.latent_space import digits, divergence, faces, overview, spatial
from benchmarks.latent_space.comparison import examine
from benchmarks.latent_space.datasets import DEFAULT_MINUTES, Plan, drawn_faces, written_digits
from benchmarks.latent_space.models import Recipe, serving, train_all
from latentwire_cli.report import Batch, print_line, working

OUT, WORK = Path("docs/images/vae"), Path("latent-space-work")
AE, VAE = "faces-ae", "faces-vae"
F8C4 = "f8c4"


def make(plan: Plan, work: Path, out: Path) -> None:
    """Train what is not there yet, measure it, and write every figure, table and number.

    `work` keeps data sets and trained models; figures, tables and numbers go to `out`.
    """
    out.mkdir(parents=True, exist_ok=True)
    with Batch("drawing", plan.faces) as batch:
        drawn = drawn_faces(work / f"faces-{plan.faces}", plan.faces, lambda *_: batch.done())
    written = written_digits(work / f"digits-{plan.digits}", plan.digits)
    vae = Recipe(drawn.folder, drawn.side, plan.face_steps, plan.batch_size, ("data.mirror_share=0.5",))
    recipes = {AE: vae.plain(), VAE: vae, **digits.recipes(written, plan)}
    sources = train_all(recipes, work / f"models-{plan.face_steps}-{plan.digit_steps}")
    fits = divergence.draw(out / "divergence.png")
    with serving({**sources, F8C4: F8C4}) as models:
        pair = {"autoencoder": models[AE], "VAE": models[VAE]}
        with working("measuring the models of faces"):
            of_faces = {name: examine(model, drawn, plan) for name, model in pair.items()}
            fitted = {name: faces.fit(found, drawn) for name, found in of_faces.items()}
        with working("drawing them"):
            faces.draw_data(drawn, out / "faces.png")
            faces.draw_reconstructions(pair, drawn, out / "reconstructions.png")
            faces.draw_samples(pair, of_faces, out / "samples.png")
            faces.draw_latents(of_faces, out / "latents.png")
            faces.draw_attributes(fitted["VAE"], out / "attributes.png")
            edited = faces.edits(models[VAE], fitted["VAE"], faces.plain_face(models[VAE], drawn))
            faces.draw_edits(edited, fitted["VAE"], out / "edits.png")
            faces.draw_morph(models[VAE], drawn, out / "morph.png", out / "morph.gif")
            overview.draw(pair, of_faces, drawn, out / "comparison.png")
        with working("measuring the models of digits"):
            digit_pair = {"autoencoder": models[digits.AE], "VAE": models[digits.VAE]}
            of_digits = {name: examine(model, written, plan) for name, model in digit_pair.items()}
            weighed = digits.weigh(models, written, plan.weights)
            digits.draw_weights(weighed, out / "weights.png")
            digits.draw_planes(models, written, out / "planes.png")
        with working("measuring f8c4"):
            photographs = spatial.photographs(plan.photographs)
            of_photographs = spatial.examine(models[F8C4], photographs)
            spatial.draw_latents(models[F8C4], photographs[0], out / "spatial.png")
            spatial.draw_rounded(models[F8C4], photographs[0], of_photographs, out / "rounded.png")
    findings = {f"faces, {name}": found for name, found in of_faces.items()}
    findings |= {f"digits, {name}": found for name, found in of_digits.items()}
    tables = {
        "comparison": overview.table(findings, {f"faces, {name}": each for name, each in fitted.items()}),
        "weights": digits.table(weighed),
        "channels": spatial.channel_table(of_photographs),
        "rounded": spatial.rounded_table(of_photographs),
    }
    for name, table in tables.items():
        (out / f"{name}.md").write_text(table, encoding="utf-8")
        print_line(table)
    numbers = {
        "plan": asdict(plan),
        "divergence": {name: asdict(fit) for name, fit in fits.items()},
        "models": {name: overview.numbers(found) for name, found in findings.items()},
        "attributes": {name: faces.accuracies(each) for name, each in fitted.items()},
        "weights": [digits.numbers(each) for each in weighed],
        "f8c4": spatial.numbers(of_photographs),
    }
    (out / "numbers.json").write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    """Make everything, with as much training as fits into the time."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=OUT, help=f"where figures and tables go (default {OUT})")
    parser.add_argument("--work", type=Path, default=WORK, help=f"where data and models are kept (default {WORK})")
    minutes = f"about how long it takes on two cores; steps of training follow from it (default {DEFAULT_MINUTES:g})"
    parser.add_argument("--minutes", type=float, default=DEFAULT_MINUTES, help=minutes)
    arguments = parser.parse_args()
    make(Plan().lasting(arguments.minutes), arguments.work, arguments.out)


if __name__ == "__main__":
    main()
