# SPDX-License-Identifier: Apache-2.0
"""A VAE that pipelines take for their own: images -> posteriors, raw latents -> images, computed by a server."""

import json
import os
from pathlib import Path
from typing import Any, NoReturn, Self, Unpack, cast

import diffusers
import torch
from diffusers import AutoencoderKL
from diffusers.models.autoencoders.vae import DecoderOutput, DiagonalGaussianDistribution, IdentityDistribution
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from diffusers.utils.accelerate_utils import apply_forward_hook
from torch import Tensor, nn

from latentwire_client._settings import TOKEN_VARIABLE, Address
from latentwire_client.diffusers.expected_space import check_space
from latentwire_client.diffusers.pipeline_config import to_pipeline_config
from latentwire_client.diffusers.served_model import ClientOptions, ServedModel
from latentwire_client.info import ModelInfo
from latentwire_core.files import write_whole

NETWORKS = ("encoder", "decoder", "quant_conv")
# The part of a saved config.json with the address and the identities of the model.
REMOTE = "remote"
REMOTE_KEYS = ("target", "tls", "model", "latent_space", "weights_digest")


class RemoteAutoencoderKL(AutoencoderKL):  # type: ignore[misc]
    """Images (B,3,H,W) in [-1,1] <-> raw latents (B,C,H/f,W/f), as an AutoencoderKL maps them, on a server.

        pipe.vae = RemoteAutoencoderKL.connect("host:50051", like=pipe.vae)

    It holds no weights, only one parameter, which gives it a dtype and a device like any other model. Answers are on
    the device of the input and in `dtype`; the server computes in a precision of its own. `config` has every key of an
    AutoencoderKL; keys that a pipeline registers stay in this process.

    - Batches are split to the server's limits. After `enable_slicing` each image travels by itself. Tiling is the
      server's task: `enable_tiling` changes nothing.
    - Calls may be in flight from several threads. While the server restarts, or its queue is full, they wait
      (`Retry.reconnect_s`).
    - Copies and pickles hold no connection; each process makes its own.
    - Gradients do not pass, and the networks are not here: reading `encoder` or `decoder` is an AttributeError.

    Args:
        served: the model to call.
    """

    def __init__(self, served: ServedModel) -> None:
        super(AutoencoderKL, self).__init__()  # AutoencoderKL's own would build the networks
        self._served = served
        self.register_to_config(**to_pipeline_config(served.info))
        self.post_quant_conv = _Placeholder()
        self.use_slicing = False
        self.use_tiling = False
        self.eval()

    @classmethod
    def connect(
        cls,
        target: str | None = None,
        *,
        model: str = "",
        latent_space: str | None = None,
        like: Any = None,
        allow_changed_weights: bool = False,
        **options: Unpack[ClientOptions],
    ) -> Self:
        """Map a server's address to a VAE.

        Latents of another space than the pipeline was trained on give a ruined image and no error.
        So say which space is expected, by `latent_space` or `like`. Without either, a model in one of latentwire's
        own spaces is refused, and one whose space has no name is taken with a warning.

        Args:
            target: HOST:PORT; default `$LATENTWIRE_SERVER`, else localhost:50051.
            model: a served name; default: the server's default, which then stays.
            latent_space: the name of the space that the pipeline works in, such as `sd1`, `sdxl` or `flux1`.
            like: the VAE that is replaced, `pipe.vae`; its dtype and device become this one's, as a pipeline in half
                precision needs them (else use `.to`). Compared are the name of its space, where its configuration
                has one, else the number of latent channels, the downsampling factor, scaling and shift, and, where
                the model's space has no name, the SHA-256 of the weights. VAEs whose weights differ may still share a
                space, and these comparisons do not tell one space from another that happens to agree in all of them.
            allow_changed_weights: go on when the server answers with other weights than it had at first, as long as
                their space is the same.
            options: see `ClientOptions`.

        Raises:
            LatentSpaceMismatch: the model's latents are not those expected.
            UnknownModel: no model of that name is served.
            ValueError: the model has no spatial latents, or two arguments contradict each other.
            LatentwireError: the server cannot be asked.
        """
        served = ServedModel(target, model, allow_changed_weights, **options)
        check_space(served.info, latent_space, like)
        vae = cls(served)
        replaced = None if like is None else next(like.parameters(), None)
        if replaced is not None:
            # What accelerate offloads part by part is on no device.
            vae.post_quant_conv.to(None if replaced.is_meta else replaced.device, replaced.dtype)
        return vae

    @property
    def info(self) -> ModelInfo:
        """What the server said of the model when this connected: spec, identities, scale and shift."""
        return self._served.info

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    @apply_forward_hook  # type: ignore[untyped-decorator]
    def encode(self, x: Tensor, return_dict: bool = True) -> AutoencoderKLOutput | tuple[object]:
        """Map images (B,3,H,W) in [-1,1] to the posterior of their latents, which samples here.

        Its moments travel as float32 and get the dtype of this VAE: with the same generator a sample is what it would
        be locally. A model without a log-variance (AutoencoderTiny) has one value to give: `sample` returns the mode.

        Raises:
            RuntimeError: a gradient is asked for.
            ValueError: the shape is wrong.
            LatentwireError: see `errors`.
        """
        _refuse_gradient(x)
        mean, logvar = (
            None if part is None else part.to(x.device, self.dtype)
            for part in self._served.encode(x, singly=self.use_slicing)
        )
        if logvar is None:
            posterior = IdentityDistribution(mean)
        else:
            posterior = DiagonalGaussianDistribution(torch.cat([cast(Tensor, mean), logvar], dim=1))
        return AutoencoderKLOutput(latent_dist=posterior) if return_dict else (posterior,)

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    @apply_forward_hook  # type: ignore[untyped-decorator]
    def decode(
        self, z: Tensor, return_dict: bool = True, generator: torch.Generator | None = None, **ignored: Any
    ) -> DecoderOutput | tuple[Tensor]:
        """Map raw latents (B,C,h,w) to images (B,3,h*f,w*f), about [-1,1].

        `generator` and what other VAE classes take beside it are accepted, and make no difference to decoding.

        Raises:
            RuntimeError, ValueError, LatentwireError: as `encode`.
        """
        _refuse_gradient(z)
        sample = self._served.decode(z, self.dtype, singly=self.use_slicing).to(z.device, self.dtype)
        return DecoderOutput(sample=sample) if return_dict else (sample,)

    tiled_encode = encode
    tiled_decode = decode

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Accept that nothing is trained; raises RuntimeError when it should be."""
        if requires_grad:
            raise RuntimeError("this VAE's weights are on a server; train one that AutoencoderKL.from_pretrained loads")
        return cast(Self, super().requires_grad_(False))

    def close(self) -> None:
        """Close this process's connection; the next call makes another, and so does one that is in flight."""
        self._served.close()

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        is_main_process: bool = True,
        push_to_hub: bool = False,
        **ignored: Any,
    ) -> None:
        """Write a config.json that holds the configuration, the address and the model's identities, but no weights.

        The token is not written. `from_pretrained` connects again. A pipeline's save_pretrained calls this.

        Raises:
            OSError: the file cannot be written.
            ValueError: it should be pushed to the hub.
        """
        if push_to_hub:
            raise ValueError("there are no weights to push, only an address; push the VAE that the server loaded")
        if not is_main_process:
            return
        config = {key: value for key, value in self.config.items() if not key.startswith("_")}
        config |= {"_class_name": type(self).__name__, "_diffusers_version": diffusers.__version__}
        tls, info = self._served.tls, self.info
        origin = (
            self._served.target, os.fspath(tls) if isinstance(tls, os.PathLike) else tls,
            info.name, info.latent_space, info.weights_digest,
        )  # fmt: skip
        config[REMOTE] = dict(zip(REMOTE_KEYS, origin, strict=True))
        text = json.dumps(config, indent=2, sort_keys=True) + "\n"
        write_whole(Path(save_directory) / self.config_name, text.encode())

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        *,
        subfolder: str = "",
        torch_dtype: torch.dtype | None = None,
        allow_changed_weights: bool = False,
        **options: Any,
    ) -> Self:
        """Connect to the server that a folder of `save_pretrained` names.

        Args:
            pretrained_model_name_or_path: the folder.
            subfolder: where in it the config.json is, such as `vae`.
            torch_dtype: what the VAE shall have.
            allow_changed_weights: see `connect`; also for weights that have changed since the folder was written.
            options: those of `ClientOptions`; what diffusers adds for the loading of weights is ignored.

        Raises:
            OSError: there is no config.json.
            ValueError: it is another VAE's, or a token that is meant for one server would go to another.
            LatentSpaceMismatch, WeightsChanged: the model is not the one that was saved.
            LatentwireError: the server cannot be asked.
        """
        path = Path(pretrained_model_name_or_path) / subfolder / cast(str, cls.config_name)
        text = path.read_text("utf-8-sig")
        try:
            remote = json.loads(text)[REMOTE]
            target, tls, model, latent_space, weights_digest = (remote[key] for key in REMOTE_KEYS)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{path} names no server; if it belongs to a VAE, serve that (latentwire serve --model "
                f"{path.parent}) and use RemoteAutoencoderKL.connect"
            ) from error
        given = {key: value for key, value in options.items() if key in ClientOptions.__optional_keys__}
        ours = cast(ClientOptions, {"tls": tls, **given})
        if ours.get("token") is None:
            _keep_token(target)
        served = ServedModel(target, model, allow_changed_weights, **ours)
        served.check_origin(latent_space, weights_digest)
        vae = cls(served)
        return vae if torch_dtype is None else cast(Self, vae.to(torch_dtype))

    @classmethod
    def from_single_file(cls, *arguments: Any, **options: Any) -> NoReturn:
        """Refuse: weights are the server's to load."""
        raise NotImplementedError("serve the file (latentwire serve --model FILE) and use RemoteAutoencoderKL.connect")

    @classmethod
    def from_config(cls, *arguments: Any, **options: Any) -> NoReturn:
        """Refuse: a configuration names no server."""
        raise NotImplementedError("a configuration names no server; use RemoteAutoencoderKL.connect, or copy.deepcopy")

    def extra_repr(self) -> str:
        """Return where the model is and what its latents are."""
        return f"{self.info.name!r} on {self._served.target}, {self.info.latent_space or 'unnamed'} latent space"

    def __getattr__(self, name: str) -> Any:
        if name in NETWORKS:
            raise AttributeError(
                f"there is no {name} here: its weights are on a server; load the VAE itself "
                "(AutoencoderKL.from_pretrained) to train it or to look into it"
            )
        return super().__getattr__(name)


class _Placeholder(nn.Module):
    """One frozen parameter, where the SDXL and upscaling pipelines look for a dtype; what moves a model moves it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1), requires_grad=False)


def _refuse_gradient(tensor: Tensor) -> None:
    if tensor.requires_grad and torch.is_grad_enabled():
        raise RuntimeError(
            "no gradient passes through a remote VAE: call it under torch.no_grad(), or detach its input; for VAE "
            "guidance and fine-tuning load the VAE here (AutoencoderKL.from_pretrained)"
        )


def _keep_token(target: str) -> None:
    """Refuse to send the token of the environment to an address that only a file names."""
    own = Address.choose(None, None, False)
    if own.token is not None and own.target != target:
        raise ValueError(
            f"{TOKEN_VARIABLE} is meant for {own.target}, but the folder names {target}; pass token=..., or set "
            "LATENTWIRE_SERVER to that address"
        )
