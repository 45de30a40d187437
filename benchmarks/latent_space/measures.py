# SPDX-License-Identifier: Apache-2.0
"""Images and latents of a model -> numbers that tell an autoencoder from a VAE.

A distance of two images is the root of their mean squared difference, in grey levels 0..255. A step in latent space is
drawn with the covariance of the model's own latents, so that 1 is a standard deviation in each direction, whatever
scale a model gives its latents. Otherwise models would not compare.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Images = npt.NDArray[np.uint8] | npt.NDArray[np.floating]


@dataclass(frozen=True, eq=False)
class Gaussian:
    """A normal distribution of d numbers.

    Attributes:
        mean: (d,).
        root: (d,d), with root @ root.T the covariance.
    """

    mean: Array
    root: Array

    @classmethod
    def fit(cls, points: npt.NDArray[np.floating]) -> "Gaussian":
        """Map points (N,d), N > 1, to the normal distribution that has their mean and covariance."""
        wide = points.astype(np.float64)
        variances, axes = np.linalg.eigh(np.atleast_2d(np.cov(wide, rowvar=False)))
        return cls(wide.mean(axis=0), axes * np.sqrt(np.maximum(variances, 0)))

    def draw(self, count: int, seed: int) -> Array:
        """Draw points (count,d)."""
        return self.mean + self.steps(count, seed)

    def steps(self, count: int, seed: int) -> Array:
        """Draw steps (count,d) in random directions, of one standard deviation: the same covariance about zero."""
        whitened = np.random.default_rng(seed).standard_normal((count, len(self.mean)))
        return np.asarray(whitened @ self.root.T)


def distance(images: Images, others: Images) -> Array:
    """Map two sets of images (N,...) to the distance of each pair, (N,)."""
    differences = images.astype(np.float64) - others
    return np.asarray(np.sqrt(np.square(differences).reshape(len(differences), -1).mean(axis=1)))


def nearest(images: Images, data: Images) -> tuple[Array, npt.NDArray[np.intp]]:
    """Map images (N,...) to the distance to the nearest of the images `data` (M,...), (N,), and to its index.

    The measure of realism of Berthelot et al., Understanding and improving interpolation in autoencoders via an
    adversarial regularizer (ICLR 2019), section 3.1, there with the cosine distance. It favours blurred images.
    """
    points, known = (each.reshape(len(each), -1).astype(np.float32) for each in (images, data))
    squares = (known * known).sum(axis=1) - 2 * points @ known.T
    indices = squares.argmin(axis=1)
    return distance(images, data[indices]), indices


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
    covariances = [np.atleast_2d(np.cov(each, rowvar=False)) for each in (one, other)]
    variances, axes = np.linalg.eigh(covariances[0])
    root = (axes * np.sqrt(np.maximum(variances, 0))) @ axes.T
    # C1^(1/2) C2 C1^(1/2) is symmetric and has the eigenvalues of C1 C2.
    shared = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ covariances[1] @ root), 0)).sum()
    gap = np.square(one.mean(axis=0) - other.mean(axis=0)).sum()
    return float(max(0.0, gap + np.trace(covariances[0]) + np.trace(covariances[1]) - 2 * shared))


@dataclass(frozen=True, eq=False)
class Components:
    """The principal components of images: a feature vector for each.

    Attributes:
        mean: of the images, flat.
        axes: (k,D), orthonormal.
    """

    mean: Array
    axes: Array

    @classmethod
    def of(cls, images: Images, count: int) -> "Components":
        """Map images (N,...) to their first components, at most `count`."""
        flat = images.reshape(len(images), -1).astype(np.float64)
        mean = flat.mean(axis=0)
        centred = flat - mean
        # The smaller of the two products with the same eigenvalues.
        _, vectors = np.linalg.eigh(centred @ centred.T)
        axes = vectors[:, ::-1][:, : min(count, len(flat) - 1)].T @ centred
        return cls(mean, axes / np.linalg.norm(axes, axis=1, keepdims=True))

    def features(self, images: Images) -> Array:
        """Map images (N,...) to (N,k), scaled so that their distances are those of the images."""
        flat = images.reshape(len(images), -1).astype(np.float64) - self.mean
        return np.asarray(flat @ self.axes.T / np.sqrt(len(self.mean)))
