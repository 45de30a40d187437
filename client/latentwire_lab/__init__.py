# SPDX-License-Identifier: Apache-2.0
"""Looking into a latent space: samples, paths, statistics, attribute vectors, drawn faces."""

from latentwire_lab.accuracy import HeldOut, Interval
from latentwire_lab.attributes import Attributes, AttributeVector
from latentwire_lab.fitting import fit_attributes
from latentwire_lab.paths import along_line, along_sphere, prior_samples
from latentwire_lab.statistics import Departure, LatentStatistics, posterior_statistics

__all__ = [
    "AttributeVector",
    "Attributes",
    "Departure",
    "HeldOut",
    "Interval",
    "LatentStatistics",
    "along_line",
    "along_sphere",
    "fit_attributes",
    "posterior_statistics",
    "prior_samples",
]
