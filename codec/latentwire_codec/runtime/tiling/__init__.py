# SPDX-License-Identifier: Apache-2.0
"""A VAE's network, and images of any size -> the same result in bounded memory, with less arithmetic.

tiled        the entry: which way a batch is computed
kl, latent   the networks as steps from one feature map to the next
sweep        a map, strip by strip -> memory
feature_map  maps that are computed when their rows are read
moments      the statistics of a whole map, for its normalisation
convolution  the least arithmetic for each kind of convolution; winograd is the largest part of it
footprint    how much memory a network takes when it runs at once
"""

from latentwire_codec.runtime.tiling.tiled import Tiled, Tiling

__all__ = ["Tiled", "Tiling"]
