# SPDX-License-Identifier: Apache-2.0
"""The posteriors of many images -> how far they are, taken together, from the prior N(0, I).

A VAE's decoder learns from samples of the aggregate posterior: a random image, then a sample of its posterior. Where
the aggregate posterior is far from N(0, I), the decoder has not seen the samples of N(0, I).

A dimension is a channel; the channels of a vector model are its latent dimensions. In spatial latents every position of
every image is an observation of each channel. One more number tells how far spatial latents are from N(0, I): the
correlation of neighbouring positions, which are independent in N(0, I).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from latentwire_core.kinds import LatentKind
from latentwire_core.latents import Latents
from latentwire_core.noise import MAX_SEED

Array = npt.NDArray[np.float64]

ACTIVE_VARIANCE = 0.01
"""A dimension is active where the posterior mean varies by more than this over the images (Burda, Grosse,
Salakhutdinov, Importance weighted autoencoders, ICLR 2016, section 5.2)."""

# (limit, k) for each measure. Up to `limit` the aggregate posterior counts as close to N(0, I). N true draws of N(0, 1)
# stay within k / sqrt(N), except in about one dimension of 100,000.
MEAN, STD, KS, CORRELATION = (0.15, 4.4), (0.15, 3.1), (0.1, 2.5), (0.2, 4.4)

# A dimension that varies by less than this share of its root mean square is constant: its correlation would be one of
# rounding errors.
CONSTANT = 1e-9

POSITIONS = 4096
"""A larger image counts with this many positions, drawn at random, so that it does not outweigh the others."""


@dataclass(frozen=True)
class Departure:
    """How far the aggregate posterior is from N(0, I) by one measure."""

    measure: str
    value: float  # the largest value over the dimensions, at least 0
    where: str  # the dimension, or the two dimensions, with this value
    limit: float  # the largest value that counts as close
    noise: float  # the part above the limit that may be chance, given the number of observations

    def __str__(self) -> str:
        sign = ">" if self.value > self.limit else "<="
        return f"{self.measure} {self.value:.2f} {sign} {self.limit:g} ({self.where})"


@dataclass(frozen=True, eq=False)
class LatentStatistics:
    """Statistics of the aggregate posterior in D dimensions; the module's text says what a dimension is.

    Attributes:
        images: number of images.
        observations: N, the number of observations of each dimension: images times positions.
        samples: float32 (D,N), samples of the aggregate posterior; without log-variances the means.
        mean: (D,), mean of the samples.
        std: (D,), standard deviation of the samples, with N - 1.
        ks: (D,), Kolmogorov-Smirnov distance of the samples to N(0, 1), 0..1.
        correlation: (D,D), correlation of the samples; 0 for a constant dimension.
        neighbour_correlation: (D,), correlation of a sample with its neighbours below and to the right; None: a sample
            has no neighbours.
        mean_variance: (D,), variance of the posterior mean over images and positions.
        kl: (D,), nats per image: the KL divergence of the posterior to N(0, 1), summed over positions, averaged over
            images; None: the model has no log-variance.
    """

    images: int
    observations: int
    samples: npt.NDArray[np.float32]
    mean: Array
    std: Array
    ks: Array
    correlation: Array
    neighbour_correlation: Array | None
    mean_variance: Array
    kl: Array | None

    @property
    def active(self) -> npt.NDArray[np.bool_]:
        """(D,): whether the posterior mean of a dimension varies with the image; see `ACTIVE_VARIANCE`."""
        return self.mean_variance > ACTIVE_VARIANCE

    @property
    def total_kl(self) -> float | None:
        """The KL divergence over all dimensions, nats per image; None: the model has no log-variance."""
        return None if self.kl is None else float(self.kl.sum())

    def departures(self) -> tuple[Departure, ...]:
        """Return the distance from N(0, I) by each measure."""
        pairs = np.abs(np.triu(self.correlation, 1))
        found = [
            self._departure("|mean|", np.abs(self.mean), MEAN),
            self._departure("|std - 1|", np.abs(self.std - 1), STD),
            self._departure("KS distance", self.ks, KS),
        ]
        if len(pairs) > 1:
            found.append(self._departure("|correlation| of two", pairs, CORRELATION))
        if (neighbours := self.neighbour_correlation) is not None:
            found.append(self._departure("|correlation| of neighbours", np.abs(neighbours), CORRELATION))
        return tuple(found)

    @property
    def is_close(self) -> bool | None:
        """Whether the aggregate posterior is close to N(0, I); None: there are too few observations to tell.

        It is close if no departure is over its limit, and not close if a departure is over its limit by more than its
        noise.
        """
        departures = self.departures()
        if all(each.value <= each.limit for each in departures):
            return True
        return False if any(each.value > each.limit + each.noise for each in departures) else None

    @property
    def verdict(self) -> str:
        """`is_close` in words, with the departures that decide it."""
        over = [each for each in self.departures() if each.value > each.limit]
        reasons = ", ".join(map(str, over or self.departures()))
        if self.is_close is not None:
            return f"{'close' if self.is_close else 'not close'} to N(0, I): {reasons}"
        return f"{self.images} images are too few to tell whether it is close to N(0, I): {reasons}, perhaps by chance"

    def _departure(self, measure: str, values: Array, limit: tuple[float, float]) -> Departure:
        worst = np.unravel_index(np.argmax(values), values.shape)
        where = f"dimension {worst[0]}" if len(worst) == 1 else f"dimensions {worst[0]} and {worst[1]}"
        return Departure(measure, float(values[worst]), where, limit[0], limit[1] / self.observations**0.5)


def posterior_statistics(posteriors: Iterable[Latents], *, seed: int = 0) -> LatentStatistics:
    """Map the moments of many images, of one size or of several, to their statistics.

    Args:
        posteriors: latents of the kind MOMENTS, each of one image or more; they are read one by one and not kept.
        seed: seed of the samples; the samples of image k have the seed (seed + k) modulo 2^64.

    Raises:
        ValueError: latents are not of the kind MOMENTS, the channels differ, or there are fewer than 2 observations.
    """
    from scipy.stats import ks_1samp, norm

    samples: list[npt.NDArray[np.float32]] = []
    means: list[npt.NDArray[np.float32]] = []
    kls: list[Array] = []
    products: list[Array] = []
    for number, posterior in enumerate(image for batch in posteriors for image in batch.split()):
        if posterior.kind is not LatentKind.MOMENTS:
            raise ValueError(f"these latents are a {posterior.kind}; encode with kind='moments'")
        mean = posterior.values[0].astype(np.float32)
        if samples and len(mean) != len(samples[0]):
            raise ValueError(f"latents have {len(mean)} channels, those before {len(samples[0])}; take one model's")
        sample = mean
        if posterior.logvar is not None:
            sample = posterior.sample([(seed + number) % (MAX_SEED + 1)]).values[0].astype(np.float32)
            wide, logvar = mean.astype(np.float64), posterior.logvar[0].astype(np.float64)
            # In nats, elementwise (Kingma and Welling, 2014, appendix B).
            kls.append(((wide**2 + np.exp(logvar) - 1 - logvar) / 2).sum(axis=(1, 2)))
        products.append(_neighbour_products(sample.astype(np.float64)))
        positions = mean[0].size
        chosen: Any = slice(None)
        if positions > POSITIONS:
            chosen = np.random.default_rng(seed).choice(positions, POSITIONS, replace=False)
        samples.append(sample.reshape(len(sample), -1)[:, chosen])
        means.append(mean.reshape(len(mean), -1)[:, chosen])
    together = np.concatenate(samples, axis=1) if samples else np.empty((0, 0), np.float32)
    if together.shape[1] < 2:
        raise ValueError(f"there are {together.shape[1]} observations of each dimension; 2 are needed, better 500")
    whole = together.astype(np.float64)
    return LatentStatistics(
        images=len(samples),
        observations=together.shape[1],
        samples=together,
        mean=whole.mean(axis=1),
        std=whole.std(axis=1, ddof=1),
        ks=np.asarray(ks_1samp(whole, norm.cdf, axis=1, method="asymp").statistic),
        correlation=_correlation(whole),
        neighbour_correlation=_neighbour_correlation(sum(products[1:], products[0])),
        mean_variance=np.concatenate(means, axis=1).astype(np.float64).var(axis=1, ddof=1),
        kl=np.mean(kls, axis=0) if kls else None,
    )


def _correlation(samples: Array) -> Array:
    deviations = samples - samples.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(deviations, axis=1, keepdims=True)
    varies = lengths > CONSTANT * np.linalg.norm(samples, axis=1, keepdims=True)
    directions = np.divide(deviations, lengths, out=np.zeros_like(deviations), where=varies)
    correlation: Array = directions @ directions.T
    np.fill_diagonal(correlation, 1)
    return correlation


def _neighbour_products(sample: Array) -> Array:
    """Map (D,h,w) to (6,D): over all pairs (a, b) of neighbours their number and the sums of a, b, a^2, b^2, ab."""
    pairs = (sample[:, :-1], sample[:, :, :-1]), (sample[:, 1:], sample[:, :, 1:])
    a, b = (np.concatenate([part.reshape(len(sample), -1) for part in ends], axis=1) for ends in pairs)
    return np.stack([each.sum(axis=1) for each in (np.ones_like(a), a, b, a * a, b * b, a * b)])


def _neighbour_correlation(products: Array) -> Array | None:
    if not products[0].any():
        return None
    mean_a, mean_b, square_a, square_b, product = products[1:] / products[0]
    spread = np.sqrt(np.maximum(square_a - mean_a**2, 0) * np.maximum(square_b - mean_b**2, 0))
    covariance = product - mean_a * mean_b
    varies = spread > CONSTANT * np.sqrt(square_a * square_b)
    return np.asarray(np.divide(covariance, spread, out=np.zeros_like(covariance), where=varies))
