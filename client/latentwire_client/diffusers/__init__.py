# SPDX-License-Identifier: Apache-2.0
"""A served VAE inside diffusers pipelines: start at `RemoteAutoencoderKL.connect`. Needs torch and diffusers."""

from importlib.util import find_spec

from latentwire_core.extras import install_hint

if not (find_spec("diffusers") and find_spec("torch")):
    raise ModuleNotFoundError(f"latentwire_client.diffusers needs its extra: {install_hint('diffusers')}")

from diffusers import ModelMixin

from latentwire_client.diffusers.remote_autoencoder import RemoteAutoencoderKL
from latentwire_client.diffusers.served_model import ClientOptions

__all__ = ["ClientOptions", "ModelMixin", "RemoteAutoencoderKL"]

# A pipeline's model_index.json names the module of each class. diffusers reloads a class only from a module that the
# caller has imported, and only where this module also holds a base class that loads models: ModelMixin.
RemoteAutoencoderKL.__module__ = __name__
