# SPDX-License-Identifier: Apache-2.0
"""Encode and decode an image with Triton's client, over the Open Inference Protocol.

    pip install 'tritonclient[grpc]'
    latentwire serve
    python examples/triton_client.py examples/photo.jpg again.png

A model NAME of the server is two models here: NAME.encode and NAME.decode.
"""

import argparse

import numpy as np
import tritonclient.grpc as triton
from PIL import Image

parser = argparse.ArgumentParser(description="Encode and decode an image with Triton's client.")
parser.add_argument("image")
parser.add_argument("output")
parser.add_argument("--server", default="localhost:50051")
parser.add_argument("--model", default="f8c4")
arguments = parser.parse_args()

client = triton.InferenceServerClient(arguments.server)
picture = Image.open(arguments.image).convert("RGB")
# Raw tensors are taken as they are: the sides must be multiples of f.
picture = picture.crop((0, 0, picture.width // 8 * 8, picture.height // 8 * 8))
pixels = np.asarray(picture)[None]  # uint8 (1,H,W,3)

image = triton.InferInput("IMAGE", pixels.shape, "UINT8")
image.set_data_from_numpy(pixels)
latents = client.infer(f"{arguments.model}.encode", [image]).as_numpy("LATENTS")
print(f"{pixels.shape} {pixels.dtype} -> {latents.shape} {latents.dtype}")

raw = triton.InferInput("LATENTS", latents.shape, "FP32")
raw.set_data_from_numpy(latents)
decoded = client.infer(f"{arguments.model}.decode", [raw]).as_numpy("IMAGE")
Image.fromarray(decoded[0]).save(arguments.output)
print(f"{arguments.output}: {decoded.shape[2]}x{decoded.shape[1]}")
