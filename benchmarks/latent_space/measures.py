# SPDX-License-Identifier: Apache-2.0
"""Images and latents of a model -> numbers that tell an autoencoder from a VAE.

A distance of two images is the root of their mean squared difference, in grey levels 0..255. A step in latent space is
drawn with the covariance of the model's own latents, so that 1 is a standard deviation in each direction, whatever
scale a model gives its latents. Otherwise models would not compare.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.decomposition import PCA
from sklearn.metrics import pairwise_distances_argmin

Array = npt.NDArray[np.float64]
Images = npt.NDArray[np.uint8] | npt.NDArray[np.floating]


@dataclass(frozen=True, eq=False)
class Gaussian:
    """A normal distribution of d numbers: its mean (d,) and its covariance (d,d)."""

    mean: Array
    covariance: Array

    @classmethod
    def fit(cls, points: npt.NDArray[np.floating]) -> "Gaussian":
        """Map points (N,d), N > 1, to the normal distribution that has their mean and covariance."""
        return cls(points.mean(axis=0, dtype=np.float64), np.atleast_2d(np.cov(points, rowvar=False, dtype=np.float64)))

    def draw(self, count: int, seed: int) -> Array:
        """Draw points (count,d)."""
        return self.mean + self.steps(count, seed)

    def steps(self, count: int, seed: int) -> Array:
        """Draw steps (count,d) in random directions, of one standard deviation: the same covariance about zero."""
        centre, draws = np.zeros_like(self.mean), np.random.default_rng(seed)
        # Rounding makes eigenvalues of a singular covariance a little negative.
        return draws.multivariate_normal(centre, self.covariance, count, check_valid="ignore", method="eigh")


def distance(images: Images, others: Images) -> Array:
    """Map two sets of images (N,...) to the distance of each pair, (N,)."""
    differences = images.astype(np.float64) - others
    return np.asarray(np.sqrt(np.square(differences).reshape(len(differences), -1).mean(axis=1)))


def nearest(images: Images, data: Images) -> Array:
    """Map images (N,...) to the distance to the nearest of the images `data` (M,...), (N,).

    The measure of realism of Berthelot et al., Understanding and improving interpolation in autoencoders via an
    adversarial regularizer (ICLR 2019), section 3.1, there with the cosine distance. It favours blurred images.
    """
    return distance(images, data[pairwise_distances_argmin(_flat(images), _flat(data))])


def _flat(images: Images) -> Array:
    return images.reshape(len(images), -1).astype(np.float64)


def steps(path: Images) -> Array:
    """Map the frames of a path (S,...) to the lengths of its S - 1 steps, in mean steps.

    Raises:
        ValueError: the path does not move.
    """
    lengths = distance(path[1:], path[:-1])
    if not lengths.any():
        raise ValueError(f"all {len(path)} frames of a path are equal; there is no step to measure")
    return np.asarray(lengths / lengths.mean())


def unevenness(paths: Images) -> Array:
    """Map P paths of S frames (P,S,...) to (P,): the longest step between neighbours, in mean steps, at least 1.

    1 is a path on which the image changes evenly; S - 1 one that jumps once. As the smoothness of Berthelot et al.
    (section 3.1), which is the longest step over the whole way less 1 / (S - 1), but without a known angle of the
    images to measure the steps by. An even path need not lead through good images: a cross-fade is even.

    Raises:
        ValueError: a path does not move.
    """
    return np.array([steps(path).max() for path in paths])


def frechet(points: npt.NDArray[np.floating], others: npt.NDArray[np.floating]) -> float:
    """Map two sets of feature vectors (N,k), (M,k) to the Frechet distance of the normal distributions fitted to them.

    The formula of the FID: |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)) (Dowson and Landau, 1982; Heusel et al.,
    arXiv 1706.08500). Its meaning depends on the features.
    """
    one, other = points.astype(np.float64), others.astype(np.float64)
    # C1 is a.T @ a and C2 is b.T @ b, so the roots of the eigenvalues of C1 C2 are the singular values of a @ b.T.
    a, b = ((each - each.mean(axis=0)) / np.sqrt(len(each) - 1) for each in (one, other))
    gap = np.square(one.mean(axis=0) - other.mean(axis=0)).sum()
    return float(max(0.0, gap + np.square(a).sum() + np.square(b).sum() - 2 * np.linalg.norm(a @ b.T, "nuc")))


def components(images: Images, count: int) -> Callable[[Images], Array]:
    """Map images (N,...) to a function that maps images to features (M,k), their first principal components.

    There are at most `count` components. The features are scaled so that their distances are those of the images.
    """
    fitted = PCA(min(count, len(images) - 1), svd_solver="full").fit(_flat(images))
    return lambda others: np.asarray(fitted.transform(_flat(others)) / np.sqrt(fitted.n_features_in_))
