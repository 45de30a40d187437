# SPDX-License-Identifier: Apache-2.0
"""Code points of colour (ITU-T H.273), as AVIF's `nclx` and PNG's `cICP` carry them -> an ICC profile.

Only what a display can show is converted: the transfer functions of HDR (PQ, HLG) have no white that 8 bits could keep,
so that images with them are refused.
"""

import struct
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from latentwire_core.errors import ImageError

UNSPECIFIED = 2
D65, ILLUMINANT_C, DCI, EQUAL = (0.3127, 0.3290), (0.310, 0.316), (0.314, 0.351), (1 / 3, 1 / 3)
SRGB_PRIMARIES = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06), D65)
ADOBE_PRIMARIES = ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06), D65)
PRIMARIES = {
    1: SRGB_PRIMARIES,
    4: ((0.67, 0.33), (0.21, 0.71), (0.14, 0.08), ILLUMINANT_C),
    5: ((0.64, 0.33), (0.29, 0.60), (0.15, 0.06), D65),
    6: ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070), D65),
    7: ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070), D65),
    8: ((0.681, 0.319), (0.243, 0.692), (0.145, 0.049), ILLUMINANT_C),
    9: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046), D65),
    10: ((1.0, 0.0), (0.0, 1.0), (0.0, 0.0), EQUAL),
    11: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), DCI),
    12: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), D65),
    22: ((0.630, 0.340), (0.295, 0.605), (0.155, 0.077), D65),
}
"""(x, y) of red, green, blue and white."""
SRGB_LIKE = (1, 6, 7, 11, 12, 13, 14, 15)
"""Video's curves are shown as sRGB's is, as browsers do: their own differs by what a dim room adds."""
GAMMAS = {4: 2.2, 5: 2.8, 8: 1.0, 17: 2.6}
HDR = {16: "PQ", 18: "HLG"}
ADOBE_GAMMA = 2.19921875
D50 = (0.9642, 1.0, 0.8249)
BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])


@dataclass(frozen=True)
class CodePoints:
    """What a file says of its colours.

    Attributes:
        primaries: ColourPrimaries of H.273.
        transfer: TransferCharacteristics of H.273.
    """

    primaries: int
    transfer: int

    def profile(self) -> bytes | None:
        """Return the ICC profile that says the same; None where the colours are those of sRGB, or are not known.

        Raises:
            ImageError: the image is HDR.
        """
        if self.transfer in HDR:
            raise ImageError(
                f"the image is HDR ({HDR[self.transfer]}, transfer {self.transfer} of H.273), which 8 bits cannot "
                "keep; save it as SDR (sRGB or Display P3)"
            )
        chosen = PRIMARIES.get(self.primaries, SRGB_PRIMARIES)
        gamma = GAMMAS.get(self.transfer)
        if chosen == SRGB_PRIMARIES and gamma is None:
            return None
        return matrix_profile(chosen, _srgb_curve() if gamma is None else gamma_curve(gamma))


def adobe_rgb() -> bytes:
    """Return a profile of Adobe RGB (1998), which the DCF option file of cameras means by R03."""
    return matrix_profile(ADOBE_PRIMARIES, gamma_curve(ADOBE_GAMMA))


def matrix_profile(primaries: tuple[tuple[float, float], ...], curve: bytes) -> bytes:
    """Map (x, y) of red, green, blue and white, and a curve, to the bytes of an ICC profile."""
    columns = dict(zip((b"rXYZ", b"gXYZ", b"bXYZ"), _to_d50(primaries).T, strict=True))
    tags = {name: _xyz(column) for name, column in columns.items()}
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    tags[b"wtpt"] = _xyz(D50)
    table, bodies = struct.pack(">I", len(tags)), b""
    for name, body in tags.items():
        table += name + struct.pack(">II", 132 + 12 * len(tags) + len(bodies), len(body))
        bodies += body + bytes(-len(body) % 4)
    head = struct.pack(">I4sI4s4s4s", 128 + len(table) + len(bodies), bytes(4), 0x04200000, b"mntr", b"RGB ", b"XYZ ")
    head += bytes(12) + b"acsp" + bytes(28) + _fixed(*D50)
    return head.ljust(128, b"\0") + table + bodies


def gamma_curve(gamma: float) -> bytes:
    """Return the curve x^gamma as an ICC tag."""
    return b"para" + bytes(8) + _fixed(gamma)


def _srgb_curve() -> bytes:
    return b"para" + bytes(4) + struct.pack(">HH", 3, 0) + _fixed(2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)


def _to_d50(primaries: tuple[tuple[float, float], ...]) -> npt.NDArray[np.float64]:
    """Map primaries to the matrix (3,3) from linear RGB to XYZ, adapted to D50 as Bradford does."""
    *colours, white = ([x / y, 1.0, (1 - x - y) / y] if y else [1.0, 0.0, 0.0] for x, y in primaries)
    if not primaries[2][1]:  # blue of XYZ itself
        colours[2] = [0.0, 0.0, 1.0]
    matrix = np.array(colours).T
    matrix = matrix * np.linalg.solve(matrix, np.array(white))
    scale = (BRADFORD @ np.array(D50)) / (BRADFORD @ np.array(white))
    adapted: npt.NDArray[np.float64] = np.linalg.inv(BRADFORD) @ np.diag(scale) @ BRADFORD @ matrix
    return adapted


def _xyz(values: npt.ArrayLike) -> bytes:
    return b"XYZ " + bytes(4) + _fixed(*np.asarray(values).tolist())


def _fixed(*values: float) -> bytes:
    return struct.pack(f">{len(values)}i", *(round(value * 65536) for value in values))
