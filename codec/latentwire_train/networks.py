# SPDX-License-Identifier: Apache-2.0
"""An architecture and its options -> a network to train, with its configuration.

    latent-vae       LatentVAE       spatial latents, images of any size that is a multiple of 8
    autoencoder-kl   AutoencoderKL   diffusers' class, spatial latents, any widths
    vector           VectorVAE       one latent vector for each image, of one size

The tensors of every network have the names of its diffusers class, so they are saved without a change. Only
`autoencoder-kl` needs diffusers.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from latentwire_codec.checkpoints.folder import find_folder, read_folder
from latentwire_codec.networks.latent_vae import LatentVAE
from latentwire_codec.networks.vector_vae import VectorVAE
from latentwire_train.config import Architecture, AutoencoderKind, ConfigError, ModelConfig

POINT_LOGVAR = -30.0
"""The log-variance of a plain autoencoder's latents, where the class has no floor above it: sigma = 3e-7."""


@dataclass(frozen=True)
class Network:
    """A VAE to train."""

    module: nn.Module  # the whole network; its tensors have the names under which they are saved
    encoder: nn.Module  # images (B,3,H,W) in [-1,1] -> moments (B,2C,h,w)
    decoder: nn.Module  # latents (B,C,h,w) -> images (B,3,H,W)
    class_name: str  # the diffusers class that loads it
    config: Mapping[str, Any]  # the configuration of that class
    # Fits the closed-form parts to batches of images (B,3,H,W) in [-1,1] before the first step, with latents of
    # variance 1 or without; None: the network has no closed-form part.
    begin_with: Callable[[Iterable[Tensor], bool], None] | None = None

    @property
    def parameters(self) -> int:
        """The number of parameters."""
        return sum(parameter.numel() for parameter in self.module.parameters())

    @torch.no_grad()
    def latent_shape(self, size: int) -> tuple[int, int, int]:
        """Map the side of an image in pixels to the shape (C,h,w) of its latents.

        Raises:
            ConfigError: the network takes no images of this size.
        """
        image = torch.zeros(1, 3, size, size, device=next(self.module.parameters()).device)
        try:
            mean = self.encoder(image).chunk(2, dim=1)[0]
            decoded = self.decoder(mean)
        except Exception as error:
            raise ConfigError(f"data.size is {size}; the {self.class_name} takes no such images: {error}") from error
        if decoded.shape != image.shape:
            raise ConfigError(
                f"data.size is {size}, and the {self.class_name} returns images of {decoded.shape[-1]} px; "
                f"take a multiple of {max(1, size // mean.shape[-1])}"
            )
        return tuple(mean.shape[1:])


def build_network(config: ModelConfig, size: int) -> Network:
    """Map a configuration to a network with random weights, or with those of `config.init`.

    With `init` the options come from there; given options must agree with them. A vector VAE is built for images of
    `size` pixels.

    Raises:
        ConfigError: the options do not fit the architecture, or `init` does not fit options or architecture.
        ModelError: `init` cannot be found or read.
    """
    options, tensors = dict(config.options), None
    if config.init:
        stored, tensors = read_folder(find_folder(config.init))
        options = _options_of(stored, config)
    elif config.family is Architecture.VECTOR:
        options.setdefault("image_size", size)
    try:
        network = _build(config.family, options)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"model.options {options} do not fit the architecture {config.family}: {error}") from error
    if tensors is not None:
        try:
            network.module.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
        except RuntimeError as error:
            raise ConfigError(f"model.init {config.init} does not fit its own configuration: {error}") from error
    if config.kind is AutoencoderKind.AE:
        pin_logvar(network)
    return network


@torch.no_grad()
def pin_logvar(network: Network, logvar: float = POINT_LOGVAR) -> None:
    """Make every log-variance of the posterior the same, whatever the image, or as close to it as the class allows.

    The default makes a point of the posterior: the latents of a plain autoencoder.
    """
    pin = getattr(network.encoder, "pin_logvar", None)
    if pin is not None:
        pin(logvar)
        return
    *_, last = (layer for layer in network.encoder.modules() if isinstance(layer, nn.Conv2d))
    weight, bias = last.weight, cast(Tensor, last.bias)
    weight[len(weight) // 2 :] = 0
    bias[len(bias) // 2 :] = logvar


def _options_of(stored: Mapping[str, Any], config: ModelConfig) -> dict[str, Any]:
    """Map the config.json of a folder to the options of its network."""
    wanted, found = _CLASSES[config.family], stored.get("_class_name")
    if found != wanted:
        raise ConfigError(f"model.init {config.init} is an {found}; the architecture {config.family} is {wanted}")
    own = {key: value for key, value in stored.items() if key in _network_options(config.family)}
    for key, value in config.options.items():
        if own.get(key) != value:
            raise ConfigError(f"model.options.{key} is {value!r}; in model.init it is {own.get(key)!r}; leave it out")
    return own


def _network_options(family: Architecture) -> Mapping[str, inspect.Parameter]:
    """Map an architecture to the parameters of its class."""
    if family is not Architecture.AUTOENCODER_KL:
        return inspect.signature(_PLAIN[family]).parameters
    from diffusers import AutoencoderKL

    return inspect.signature(AutoencoderKL.__init__).parameters


def _build(family: Architecture, options: Mapping[str, Any]) -> Network:
    """Map an architecture and its options to a network whose configuration has the defaults too."""
    if family is Architecture.AUTOENCODER_KL:
        return _autoencoder_kl(options)
    module = _PLAIN[family](**options)
    defaults = {p.name: p.default for p in _network_options(family).values() if p.default is not p.empty}
    config = defaults | dict(options)
    return Network(module, module.encoder, module.decoder, _CLASSES[family], config, module.begin_with)


def _autoencoder_kl(options: Mapping[str, Any]) -> Network:
    from diffusers import AutoencoderKL

    widths = options.get("block_out_channels", (32, 64, 128, 128))
    defaults: dict[str, Any] = {
        "block_out_channels": tuple(widths),
        "down_block_types": ("DownEncoderBlock2D",) * len(widths),
        "up_block_types": ("UpDecoderBlock2D",) * len(widths),
        "norm_num_groups": min(32, *widths),
    }
    module: Any = AutoencoderKL(**{**defaults, **options})
    config = {key: value for key, value in module.config.items() if not key.startswith("_")}
    encoder = nn.Sequential(*_present(module, "encoder", "quant_conv"))
    decoder = nn.Sequential(*_present(module, "post_quant_conv", "decoder"))
    return Network(module, encoder, decoder, _CLASSES[Architecture.AUTOENCODER_KL], config)


_PLAIN: dict[Architecture, type[LatentVAE] | type[VectorVAE]] = {
    Architecture.LATENT_VAE: LatentVAE,
    Architecture.VECTOR: VectorVAE,
}
_CLASSES = {
    Architecture.LATENT_VAE: "AutoencoderLatentVAE",
    Architecture.AUTOENCODER_KL: "AutoencoderKL",
    Architecture.VECTOR: "AutoencoderVectorVAE",
}


def _present(module: nn.Module, *names: str) -> list[nn.Module]:
    """Return the children of these names; an AutoencoderKL may lack the 1x1 convolutions around its latents."""
    return [child for name in names if (child := getattr(module, name, None)) is not None]
