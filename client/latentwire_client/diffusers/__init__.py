# SPDX-License-Identifier: Apache-2.0
"""A served VAE inside diffusers pipelines: start at `RemoteAutoencoderKL.connect`. Needs torch and diffusers."""

from importlib.util import find_spec

if not (find_spec("diffusers") and find_spec("torch")):
    raise ModuleNotFoundError("latentwire_client.diffusers needs its extra: pip install 'latentwire[diffusers]'")

from diffusers import ModelMixin

from latentwire_client.diffusers.remote_autoencoder import RemoteAutoencoderKL
from latentwire_client.diffusers.served_model import ClientOptions

__all__ = ["ClientOptions", "ModelMixin", "RemoteAutoencoderKL"]

# A pipeline's model_index.json names the module of each class. It is reloaded where the caller has imported that
# module, so it shall be this one; and by the methods of a base class that the module has too, which is ModelMixin.
RemoteAutoencoderKL.__module__ = __name__
