# SPDX-License-Identifier: Apache-2.0
"""Latents and labels of images -> attribute vectors, each measured on images that it was not fitted to. numpy only.

Labels play no part in training a VAE; a direction that is found all the same tells what its latents hold.
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

# Of the logistic regression: half of it times the squared weights is added to the mean loss, the latents being in units
# of their standard deviation. It bounds the weights where the images can be separated, and decides little elsewhere.
RIDGE = 0.01
GRADIENT = 1e-6
MAX_STEPS = 1000


def unusable(labels: Mapping[str, Labels], held_out: Mask) -> dict[str, str]:
    """Map labels to the attributes of which no vector can be fitted and measured, and why.

    Args:
        labels: of each attribute (B,), 1 or -1.
        held_out: (B,), which images are kept for measuring.
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

    - `means`: the mean of the images with the attribute, less that of those without.
    - `logistic`: the normal of the plane that an L2-penalised logistic regression puts between them, as long as
      the difference of the means is along it. It is the better at telling the two apart, for it disregards dimensions
      in which both vary alike; the mean is often the better to edit with.

    Either way an edit by 1 leads, as the vector's score sees it, from the average image without to the average one
    with it. An image counts as having the attribute from the middle on, whichever of the two is more frequent.

    Args:
        latents: raw, of B images of one size; of moments the mean is taken.
        labels: of each attribute (B,), 1 or -1.
        held_out: (B,), the images that are not fitted to but measured on.
        method: `means` or `logistic`.

    Raises:
        ValueError: the latents are scaled, the labels are not 1 and -1, the numbers of images differ, an attribute is
            `unusable` or makes no difference at all, or there is none.
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
        found = scores(latents.values[held_out], direction, offset) >= 0.5
        vectors[name] = AttributeVector(
            name,
            direction.reshape(latents.values.shape[1:]),
            offset,
            fitted_with=int(present[:, index].sum()),
            fitted_without=int((~present[:, index]).sum()),
            held_out=_count(found, labels[name][held_out] > 0),
        )
    return Attributes(vectors, method, latents.image_size, latents.model, latents.latent_space, latents.weights_digest)


def _count(found: Mask, true: Mask) -> HeldOut:
    return HeldOut(int((found & true).sum()), int(true.sum()), int((~found & ~true).sum()), int((~true).sum()))


def _logistic_normals(points: Matrix, present: Mask) -> Matrix:
    """Map N points (N,D), and A attributes of each (N,A), to the weights (A,D) of A logistic regressions.

    Newton's method, but with a bound of the second derivatives, X'X / 4N, in their place (Boehning and Lindsay,
    Monotonicity of quadratic-approximation algorithms, 1988): it is the same at every step and for every attribute, so
    that one inverse serves all, and each step lowers the loss without a line search. The first step is the linear
    discriminant.
    """
    centred = points - points.mean(axis=0)
    x = centred / (centred.std() or 1.0)
    basis = None
    if x.shape[1] > len(x):
        # The weights lie in the span of the points, which has fewer dimensions than the latents.
        basis, triangle = np.linalg.qr(x.T)
        x = triangle.T
    inverse = np.linalg.inv(x.T @ x / (4 * len(x)) + RIDGE * np.eye(x.shape[1]))
    weights = np.zeros((x.shape[1], present.shape[1]))
    intercepts = np.zeros(present.shape[1])
    for _ in range(MAX_STEPS):
        excess = (1 + np.tanh((x @ weights + intercepts) / 2)) / 2 - present
        slope, tilt = x.T @ excess / len(x) + RIDGE * weights, excess.mean(axis=0)
        if max(np.abs(slope).max(), np.abs(tilt).max()) < GRADIENT:
            break
        weights -= inverse @ slope
        intercepts -= 4 * tilt
    return np.asarray(weights.T if basis is None else weights.T @ basis.T)
