# SPDX-License-Identifier: Apache-2.0
"""Run a Stable Diffusion pipeline whose VAE is on a server.

    latentwire serve --model stable-diffusion --latent-space stable-diffusion=sd1      # where the VAE shall run
    python examples/pipeline_without_vae.py stable-diffusion "a cat" cat.png           # where the UNet runs

`stable-diffusion` is a folder that `save_pretrained` wrote. Here its `vae/` is never loaded: no weights, no memory.
"""

import argparse

import torch
from diffusers import StableDiffusionPipeline

from latentwire_client.diffusers import RemoteAutoencoderKL

parser = argparse.ArgumentParser(description="Run a pipeline whose VAE is on a server.")
parser.add_argument("pipeline", help="the folder of a Stable Diffusion 1.x pipeline")
parser.add_argument("prompt")
parser.add_argument("output", help="the image file to write")
parser.add_argument("--server", default="localhost:50051")
parser.add_argument("--space", default="sd1", help="the latent space that the UNet was trained in")
parser.add_argument("--steps", type=int, default=25)
arguments = parser.parse_args()

# Naming the space is the safeguard: a server with another VAE is refused, and no image is silently wrong.
vae = RemoteAutoencoderKL.connect(arguments.server, latent_space=arguments.space)
pipeline = StableDiffusionPipeline.from_pretrained(arguments.pipeline, vae=vae)
image = pipeline(
    arguments.prompt, num_inference_steps=arguments.steps, generator=torch.Generator().manual_seed(0)
).images[0]
image.save(arguments.output)
print(f"{arguments.output}: {image.width}x{image.height}")
