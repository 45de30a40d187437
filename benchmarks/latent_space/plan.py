# SPDX-License-Identifier: Apache-2.0
"""Minutes -> how many images, training steps and measurements the figures of docs/vae.md are made with."""

from dataclasses import dataclass, replace

DEFAULT_MINUTES = 20.0
"""What the default plan takes on two cores of an ordinary processor without AVX-512."""


@dataclass(frozen=True)
class Plan:
    """How much is done.

    Attributes:
        faces: that are drawn; of ten eight are trained on, one chooses the best weights, one is measured on.
        digits: of scikit-learn's 1797 that are used; of six five are trained on, one is measured on.
        face_steps: of training, of each of the two models of faces.
        digit_steps: likewise of the models of digits.
        batch_size: of all of them.
        pairs: of test images that are interpolated between.
        samples: of a prior that are measured.
        stepped: test images that are stepped away from in latent space.
        weights: of the KL divergence that are tried on digits, per value of an image.
        photographs: how many of scikit-image's the spatial latents are measured on.
    """

    faces: int = 6000
    digits: int = 1797
    face_steps: int = 2000
    digit_steps: int = 600
    batch_size: int = 32
    pairs: int = 100
    samples: int = 400
    stepped: int = 100
    weights: tuple[float, ...] = (0.01, 0.1, 1.0, 10.0, 100.0)
    photographs: int = 4

    def lasting(self, minutes: float) -> "Plan":
        """Return the plan with the steps of training that fit into another time than `DEFAULT_MINUTES`.

        Raises:
            ValueError: the time is not above 0.
        """
        if not minutes > 0:
            raise ValueError(f"the plan shall take {minutes} minutes; it must be above 0")
        share = minutes / DEFAULT_MINUTES
        return replace(
            self,
            face_steps=max(1, round(self.face_steps * share)),
            digit_steps=max(1, round(self.digit_steps * share)),
        )
