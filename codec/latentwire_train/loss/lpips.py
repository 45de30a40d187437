# SPDX-License-Identifier: Apache-2.0
"""Two images (B,3,H,W) in [-1,1] -> their perceptual distance (LPIPS); its weights come from disk alone."""

from collections import OrderedDict
from itertools import pairwise
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from latentwire_core.errors import CheckpointError, TensorError

# Each file's published name, and a name for the same tensors without a pickle.
BACKBONE_FILES = ("vgg16-397923af.pth", "vgg16.safetensors")
HEAD_FILES = ("vgg.pth", "lpips_vgg.safetensors")
VGG16 = ((3, 64, 64), (64, 128, 128), (128, 256, 256, 256), (256, 512, 512, 512), (512, 512, 512, 512))
# Mean and spread of ImageNet's RGB, moved to images in [-1,1].
VGG_SHIFT, VGG_SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)


class Lpips(nn.Module):
    """LPIPS with VGG16: maps prediction and target (B,3,H,W) in [-1,1] to their perceptual distance, a scalar >= 0.

    At five depths the features of both are divided by their norm over channels, and the squared difference is
    weighted per channel and averaged over positions; the depths are summed, then the mean over images is taken.
    Each side must be at least 16. Gradients flow to the prediction only; no weight is trained.

    Under autocast VGG16 runs in the lower precision (VGG16 is most of the cost), the distance in float32. It is built
    with random weights: `lpips_from` loads the published weights.

    Source: Zhang et al., The Unreasonable Effectiveness of Deep Features as a Perceptual Metric (arXiv 1801.03924),
    version 0.1 of its weights; Simonyan and Zisserman (arXiv 1409.1556), configuration D.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        # One flat sequence, so that the layers have the numbers of the published names (`features.28.weight`).
        features: OrderedDict[str, nn.Module] = OrderedDict()
        self.taps = []
        for depth, widths in enumerate(VGG16):
            if depth:
                features[str(len(features))] = nn.MaxPool2d(2)
            for n_in, n_out in pairwise(widths):
                features[str(len(features))] = nn.Conv2d(n_in, n_out, 3, padding=1)
                features[str(len(features))] = nn.ReLU()
            self.taps.append(len(features) - 1)
        self.features = nn.Sequential(features)
        self.heads = nn.ParameterList([torch.ones(1, widths[-1], 1, 1) for widths in VGG16])
        self.register_buffer("shift", torch.tensor(VGG_SHIFT).reshape(3, 1, 1))
        self.register_buffer("scale", torch.tensor(VGG_SCALE).reshape(3, 1, 1))
        self.requires_grad_(False)

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Map two batches of images to their mean distance."""
        if prediction.shape != target.shape:
            shapes = f"{tuple(prediction.shape)} and {tuple(target.shape)}"
            raise TensorError(f"the tensors have shapes {shapes}; both must be equal")
        with torch.no_grad():
            targets = self._normalised(target)
        distances = [
            ((ours - theirs).square() * head).sum(dim=1).mean()
            for ours, theirs, head in zip(self._normalised(prediction), targets, self.heads, strict=True)
        ]
        return torch.stack(distances).sum()

    def _normalised(self, images: Tensor) -> list[Tensor]:
        x = (images - self.shift) / self.scale
        maps = []
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in self.taps:
                full = x.float()
                # Inside the root, because its gradient at 0 is infinite.
                maps.append(full * (full.square().sum(dim=1, keepdim=True) + 1e-8).rsqrt())
        return maps


def lpips_from(folder: str | Path) -> Lpips:
    """Map a folder with two weight files to LPIPS on the CPU; nothing is ever downloaded.

    The files are torchvision's VGG16 for ImageNet (`vgg16-397923af.pth`, or `vgg16.safetensors`; its classifier is
    not used) and the linear weights of LPIPS 0.1 (`vgg.pth`, or `lpips_vgg.safetensors`). A `.pth` is read with
    torch's restricted unpickler, which makes tensors and nothing else.

    Raises:
        CheckpointError: a file is missing, cannot be read, or does not hold the tensors that are needed.
    """
    folder, files = Path(folder), []
    wanted = {BACKBONE_FILES: "torchvision's VGG16", HEAD_FILES: "linear weights of LPIPS 0.1"}
    missing = []
    for names, what in wanted.items():
        found = [folder / name for name in names if (folder / name).is_file()]
        files += found[:1]
        missing += [] if found else [f"{' or '.join(names)} ({what})"]
    if missing:
        raise CheckpointError(
            f"LPIPS needs {' and '.join(missing)} in {folder}; put them there (nothing is downloaded) or do without"
        )
    lpips = Lpips()
    state = dict(lpips.state_dict())
    backbone, head = ((path, _read(path)) for path in files)
    for name, own in state.items():
        if name in ("shift", "scale"):
            continue
        (path, stored), stored_name = backbone, name
        if name.startswith("heads."):
            (path, stored), stored_name = head, f"lin{name.removeprefix('heads.')}.model.1.weight"
        tensor = stored.get(stored_name)
        if not isinstance(tensor, Tensor) or tensor.shape != own.shape:
            fault = f"is {tuple(tensor.shape)}" if isinstance(tensor, Tensor) else "is missing"
            raise CheckpointError(f"{stored_name} of {path} {fault}; it must be {tuple(own.shape)}")
        state[name] = tensor
    lpips.load_state_dict(state)
    return lpips.eval()


def _read(path: Path) -> dict[str, object]:
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        return dict(torch.load(path, map_location="cpu", weights_only=True))
    except (OSError, EOFError, RuntimeError, SafetensorError, TypeError, UnpicklingError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as weights: {error}") from error
