# SPDX-License-Identifier: Apache-2.0
"""The terms of the loss, and what each is multiplied by."""

import math
from dataclasses import dataclass, fields


@dataclass(frozen=True)
class LossWeights:
    """What each term of the loss is multiplied by; 0 turns it off, and it is not computed.

    Attributes:
        l1, mse, charbonnier, ms_ssim, laplacian, wavelet: the functions of `losses`, with their default options.
        lpips: `Lpips`, which needs weights on disk.
        kl: `kl_divergence`, as the training loop normalises it.
        adversarial, feature_matching: `hinge_generator_loss` and `feature_matching`, when the loop begins with them.

    Raises:
        ValueError: a weight is negative or not finite.
    """

    l1: float = 0.0
    mse: float = 0.0
    charbonnier: float = 0.0
    ms_ssim: float = 0.0
    laplacian: float = 0.0
    wavelet: float = 0.0
    lpips: float = 0.0
    kl: float = 0.0
    adversarial: float = 0.0
    feature_matching: float = 0.0

    def __post_init__(self) -> None:
        """Refuse weights that cannot be meant."""
        for field in fields(self):
            weight = getattr(self, field.name)
            if not 0 <= weight < math.inf:
                raise ValueError(f"the weight of {field.name} is {weight}; it must be finite and >= 0 (0 is off)")
