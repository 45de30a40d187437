# SPDX-License-Identifier: Apache-2.0
"""A model of drawn faces and their true labels -> attribute vectors, their accuracies, and edits with them.

One more vector is fitted to random labels, for comparison.
"""

from dataclasses import asdict, replace

import numpy as np

from benchmarks.latent_space.comparison import Findings
from benchmarks.latent_space.datasets import Dataset
from benchmarks.latent_space.measures import distance
from benchmarks.latent_space.models import Model, Pixels
from latentwire_lab.accuracy import HeldOut
from latentwire_lab.attributes import Attributes
from latentwire_lab.fitting import fit_attributes, unusable

CONTROL = "random labels"
EDITED = ("Smiling", "Eyeglasses", "Wearing_Hat", "Blond_Hair", "Goatee", CONTROL)
STRENGTHS = (-2.0, -1.0, 0.0, 1.0, 2.0)
SEED = 0


def fit(found: Findings, data: Dataset) -> Attributes:
    """Fit a vector to each label of the training images, and to random ones; measure them on the test images."""
    values = np.concatenate([found.latents.values, found.test_latents.values])
    held_out = np.arange(len(values)) >= len(data.train)
    labels = {
        name: np.concatenate([known, data.test_labels[name]]).astype(np.int64)
        for name, known in data.train_labels.items()
    }
    labels[CONTROL] = np.where(np.random.default_rng(SEED).random(len(values)) < 0.5, 1, -1)
    for name in unusable(labels, held_out):
        del labels[name]
    return fit_attributes(replace(found.latents, values=values), labels, held_out)


def fitted_names(attributes: Attributes) -> list[str]:
    """Return the names of the vectors of true labels, the best first."""
    names = [name for name in attributes.vectors if name != CONTROL]
    return sorted(names, key=lambda name: -attributes.vectors[name].held_out.balanced_accuracy.value)


def mean_accuracy(attributes: Attributes) -> float:
    """Return the mean balanced accuracy of the vectors of true labels."""
    return float(np.mean([_of(attributes, name).balanced_accuracy.value for name in fitted_names(attributes)]))


def edits(model: Model, attributes: Attributes, face: Pixels) -> dict[str, Pixels]:
    """Map a face (S,S,3) to the images (K,S,S,3) that `STRENGTHS` of each of `EDITED` make of it."""
    latents = model.encode(face[np.newaxis]).mode()
    rows = {}
    for name in EDITED:
        if name in attributes.vectors:
            edited = [attributes.edit(latents, {name: strength}).values for strength in STRENGTHS]
            rows[name] = model.decode(replace(latents, values=np.concatenate(edited)))
    return rows


def plain_face(model: Model, data: Dataset) -> Pixels:
    """Return the best reconstructed test face among the faces with the fewest edited attributes."""
    counts = np.sum([values > 0 for name, values in data.test_labels.items() if name in EDITED], axis=0)
    plain = data.test[counts == counts.min()]
    face: Pixels = plain[np.argmin(distance(model.reconstruct(plain), plain))]
    return face


def numbers(attributes: Attributes) -> dict[str, dict[str, float]]:
    """Map vectors to their balanced accuracies on test images, 0..1, with the ends of the intervals."""
    return {name: asdict(vector.held_out.balanced_accuracy) for name, vector in attributes.vectors.items()}


def _of(attributes: Attributes, name: str) -> HeldOut:
    return attributes.vectors[name].held_out
