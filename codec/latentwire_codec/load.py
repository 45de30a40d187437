# SPDX-License-Identifier: Apache-2.0
"""A source of weights -> a VAE that is ready to run: checkpoint -> autoencoder -> probe."""

from latentwire_codec.checkpoints.checkpoint import load_checkpoint
from latentwire_codec.checkpoints.scaling import Numbers
from latentwire_codec.runtime.autoencoder import Autoencoder
from latentwire_codec.runtime.choice import Way, choose
from latentwire_codec.runtime.placement import DTYPES, Placement
from latentwire_codec.runtime.probe import warn_of_mix_up
from latentwire_codec.runtime.tiling.tiled import Tiling

MIB = 2**20
MEASURED = "measured"


def load_autoencoder(
    source: str = "f8c4",
    *,
    device: str = "auto",
    dtype: str = "auto",
    scale: Numbers | None = None,
    shift: Numbers | None = None,
    latent_space: str | None = None,
    allow_pickle: bool = False,
    rewrites: bool = True,
    activation_memory_mib: int | None = None,
) -> Autoencoder:
    """Map a source to a VAE that is ready to run.

    A VAE whose weights may be SD 1.x's or SDXL's is tried on a few images; see `probe`.

    Args:
        source: a bundled name, a folder, a cached hub id or a single file; see `load_checkpoint`.
        device: `auto` or a torch device; see `Placement.choose`.
        dtype: `auto` (see `Placement.choose`), `float32`, `bfloat16`, `float16`, or `measured`: on a CPU the fastest
            way to run that is within 50 dB of float32, measured at the first load on this machine and kept; on a GPU
            as `auto`. Results of `auto` are the same on every CPU, within rounding of float32.
        scale: 1 or C numbers; None: the source decides.
        shift: 1 or C numbers; None: the source decides.
        latent_space: a family's name (`sd1`, `sdxl` ...) or a name of your own; None: the source decides.
        allow_pickle: whether `.bin` weights are taken.
        rewrites: whether a CPU computes with less arithmetic, equal within rounding; see `tiling`.
        activation_memory_mib: MiB that the activations of one image may take; a larger image is computed in strips,
            with the same result. None: half of the device's memory.

    Raises:
        ModelError: the source, the device or the dtype cannot be used, or nothing tells the scaling.
    """
    checkpoint = load_checkpoint(source, scale=scale, shift=shift, latent_space=latent_space, allow_pickle=allow_pickle)
    budget = None if activation_memory_mib is None else activation_memory_mib * MIB
    measured = dtype == MEASURED
    placement = Placement.choose(device, "auto" if measured else dtype)

    def build(way: Way) -> Autoencoder:
        return Autoencoder(checkpoint, Placement(placement.device, DTYPES[way.dtype]), Tiling(way.rewrites, budget))

    if measured and placement.device.type == "cpu" and getattr(checkpoint.module, "fixed_size", None) is None:
        autoencoder = choose(source, checkpoint.weights_digest, build, rewrites)
    else:
        autoencoder = Autoencoder(checkpoint, placement, Tiling(rewrites, budget))
    warn_of_mix_up(source, autoencoder)
    return autoencoder
