# SPDX-License-Identifier: Apache-2.0
"""Latents and labels of images -> attribute vectors, each measured on images that it was not fitted to.

A VAE is trained without labels, so a direction that is found tells what its latents hold.
"""

from collections.abc import Mapping
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from latentwire_core.latents import Latents
from latentwire_lab.accuracy import HeldOut
from latentwire_lab.attributes import Attributes, AttributeVector, Method, scores

Labels = npt.NDArray[np.integer[Any]]
Mask = npt.NDArray[np.bool_]
Matrix = npt.NDArray[np.float64]

RIDGE = 0.01
"""Half of it times the squared weights is added to the mean loss of a logistic regression on latents in standard
deviations. It bounds the weights where the images can be separated, and has little effect elsewhere."""
TOLERANCE = 1e-6
MAX_STEPS = 1000


def unusable(labels: Mapping[str, Labels], held_out: Mask) -> dict[str, str]:
    """Map labels to the attributes whose vector cannot be fitted and measured, each with the reason.

    Args:
        labels: attribute -> (B,), 1 or -1.
        held_out: (B,), whether an image is kept for measuring.
    """
    reasons: dict[str, str] = {}
    for name, values in labels.items():
        for images, purpose in ((~held_out, "fit to"), (held_out, "measure on")):
            having, total = int((values[images] > 0).sum()), int(images.sum())
            if having in (0, total):
                reason = f"{having} of the {total} images to {purpose} have it; both kinds are needed"
                reasons.setdefault(name, reason)
    return reasons


def fit_attributes(
    latents: Latents, labels: Mapping[str, Labels], held_out: Mask, method: Method = "means"
) -> Attributes:
    """Map the latents of labelled images to a vector for each attribute.

    - `means`: the mean latents of the images with the attribute, minus the mean of the images without it.
    - `logistic`: the normal of the plane that an L2-penalised logistic regression puts between the two kinds, as long
      as the difference of the means along it. It separates the two kinds better, because it disregards dimensions in
      which both vary alike; the difference of means is often better for edits.

    With both methods, an edit by 1 moves the score from that of the average image without the attribute to that of the
    average image with it. An image counts as having the attribute from the middle on, whichever kind is more frequent.

    Args:
        latents: raw latents of B images of one size; for moments the mean is taken.
        labels: attribute -> (B,), 1 or -1.
        held_out: (B,), whether an image is measured on and not fitted to.
        method: `means` or `logistic`.

    Raises:
        ValueError: the latents are scaled, the labels are not 1 and -1, the numbers of images differ, an attribute is
            `unusable` or makes no difference to the mean latents, or there is no attribute.
    """
    names = list(labels)
    if method not in get_args(Method):
        raise ValueError(f"method is {method!r}; it must be one of {', '.join(get_args(Method))}")
    if latents.scaled:
        raise ValueError("the latents are scaled; fit to raw ones")
    if not names:
        raise ValueError("there are no attributes to fit")
    for name, values in (*labels.items(), ("held_out", held_out)):
        if values.shape != (len(latents),):
            raise ValueError(f"{name} has the shape {values.shape} for {len(latents)} images; give each one value")
        if name in labels and not np.isin(values, (-1, 1)).all():
            raise ValueError(f"{name} has labels other than 1 and -1")
    for name, reason in unusable(labels, held_out).items():
        raise ValueError(f"{name}: {reason}")

    points = latents.values[~held_out].astype(np.float64).reshape(int((~held_out).sum()), -1)
    present = np.stack([labels[name][~held_out] > 0 for name in names], axis=1)
    having = np.stack([points[column].mean(axis=0) for column in present.T])
    lacking = np.stack([points[~column].mean(axis=0) for column in present.T])
    directions = having - lacking
    if method == "logistic":
        normals = _logistic_normals(points, present)
        along = (normals * directions).sum(axis=1, keepdims=True)
        directions = normals * along / np.maximum((normals**2).sum(axis=1, keepdims=True), np.finfo(float).tiny)
    vectors = {}
    for index, name in enumerate(names):
        direction = directions[index].astype(np.float32)
        square = float(np.square(direction, dtype=np.float64).sum())
        if not square:
            raise ValueError(f"{name}: the images with and without it have the same mean latents")
        offset = float(lacking[index] @ direction) / square
        found, true = scores(latents.values[held_out], direction, offset) >= 0.5, labels[name][held_out] > 0
        vectors[name] = AttributeVector(
            name,
            direction.reshape(latents.values.shape[1:]),
            offset,
            fitted_with=int(present[:, index].sum()),
            fitted_without=int((~present[:, index]).sum()),
            held_out=HeldOut(*(int(x.sum()) for x in (found & true, true, ~found & ~true, ~true))),
        )
    return Attributes(vectors, method, latents.image_size, latents.model, latents.latent_space, latents.weights_digest)


def _logistic_normals(points: Matrix, present: Mask) -> Matrix:
    """Map N points (N,D), and A attributes of each (N,A), to the weights (A,D) of A logistic regressions."""
    from sklearn.linear_model import LogisticRegression

    centred = points - points.mean(axis=0)
    x = centred / (centred.std() or 1.0)
    regression = LogisticRegression(C=1 / (RIDGE * len(x)), tol=TOLERANCE, max_iter=MAX_STEPS)
    return np.stack([regression.fit(x, column).coef_[0] for column in present.T])
