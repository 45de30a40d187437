# SPDX-License-Identifier: Apache-2.0
"""Minutes -> the numbers of images, training steps and measurements behind the figures of docs/vae.md."""

from dataclasses import dataclass, replace

DEFAULT_MINUTES = 20.0
"""The duration of the default plan on two cores of an ordinary processor without AVX-512."""


@dataclass(frozen=True)
class Plan:
    """How much is done.

    Attributes:
        faces: number of drawn faces; of ten faces, eight are for training, one for choosing weights, one for measuring.
        digits: number of scikit-learn's 1797 digits; of six digits, five are for training, one for measuring.
        face_steps: steps of training for each of the two models of faces.
        digit_steps: steps of training for each model of digits.
        batch_size: number of images of a step.
        pairs: number of pairs of test images to interpolate between.
        samples: number of samples of a prior to measure.
        stepped: number of test images to step away from in latent space.
        weights: weights of the KL divergence to try on digits, per value of an image.
        photographs: number of scikit-image's photographs for the spatial latents.
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
