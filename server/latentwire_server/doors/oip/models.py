# SPDX-License-Identifier: Apache-2.0
"""A served model and its statistics -> the metadata, configuration and statistics of its two models in the protocol."""

from dataclasses import dataclass
from typing import Any

from latentwire_codec.runtime.spec import AutoencoderSpec
from latentwire_server.doors.oip import messages as pb
from latentwire_server.doors.oip.jobs import (
    DECODE_PARAMETERS,
    ENCODE,
    ENCODE_PARAMETERS,
    IMAGE,
    IMAGE_FILE,
    LATENTS,
    LOGVAR,
    VERSION,
)
from latentwire_server.doors.oip.tensors import BYTES, DTYPES, FLOATS
from latentwire_server.telemetry.statistics import Total, Work

PLATFORM = "latentwire"
DATA_TYPES = {"UINT8": "TYPE_UINT8", "FP32": "TYPE_FP32", BYTES: "TYPE_STRING"}
ANY = -1


@dataclass(frozen=True)
class TensorSpec:
    """A tensor of a model: its name, its datatype by default, and its sides without the batch; -1: any."""

    name: str
    datatype: str
    dims: tuple[int, ...]


def tensors(operation: str, spec: AutoencoderSpec) -> tuple[list[TensorSpec], list[TensorSpec]]:
    """Map an operation of a model to its inputs and outputs."""
    height, width = spec.fixed_size or (ANY, ANY)
    latent_sides = (ANY if side == ANY else side // spec.downsample_factor for side in (height, width))
    latent_dims = (spec.latent_channels, *latent_sides)
    images = [TensorSpec(IMAGE, "UINT8", (height, width, 3)), TensorSpec(IMAGE_FILE, BYTES, (1,))]
    latents = TensorSpec(LATENTS, "FP32", latent_dims)
    if operation == ENCODE:
        return images, [latents, *([TensorSpec(LOGVAR, "FP32", latent_dims)] if spec.has_logvar else [])]
    return [latents], images


def to_metadata(name: str, operation: str, spec: AutoencoderSpec) -> Any:
    """Map a model to its ModelMetadataResponse."""
    inputs, outputs = tensors(operation, spec)
    return pb.ModelMetadataResponse(
        name=name,
        versions=[VERSION],
        platform=PLATFORM,
        inputs=[{"name": t.name, "datatype": t.datatype, "shape": (ANY, *t.dims)} for t in inputs],
        outputs=[{"name": t.name, "datatype": t.datatype, "shape": (ANY, *t.dims)} for t in outputs],
    )


def to_config(name: str, operation: str, spec: AutoencoderSpec, max_batch: int) -> Any:
    """Map a model to its ModelConfigResponse.

    Args:
        name: the name of the model in the protocol.
        operation: encode or decode.
        spec: what the model is.
        max_batch: the most images in one request.
    """
    inputs, outputs = tensors(operation, spec)
    on_gpu = spec.device.startswith("cuda")
    group = {"name": name, "count": 1, "kind": "KIND_GPU" if on_gpu else "KIND_CPU"}
    if on_gpu:
        group["gpus"] = [int(spec.device.partition(":")[2] or 0)]
    config = pb.ModelConfig(
        name=name,
        platform=PLATFORM,
        backend=PLATFORM,
        max_batch_size=max_batch,
        input=[
            {
                "name": tensor.name,
                "data_type": DATA_TYPES[tensor.datatype],
                "format": "FORMAT_NHWC" if tensor.name == IMAGE else "FORMAT_NONE",
                "dims": tensor.dims,
                "optional": len(inputs) > 1,  # a request has one of them
            }
            for tensor in inputs
        ],
        output=[{"name": t.name, "data_type": DATA_TYPES[t.datatype], "dims": t.dims} for t in outputs],
        instance_group=[group],
        # On a CPU images run one by one.
        dynamic_batching={} if on_gpu else None,
    )
    for key, text in _described(operation, spec).items():
        config.parameters[key].string_value = text
    return pb.ModelConfigResponse(config=config)


def to_statistics(name: str, work: Work) -> Any:
    """Map the statistics of a model to its ModelStatistics."""
    return pb.ModelStatistics(
        name=name,
        version=VERSION,
        last_inference=work.last_ms,
        inference_count=work.images,
        execution_count=sum(batches.count for batches in work.batches.values()),
        inference_stats={
            "success": _duration(work.success),
            "fail": _duration(work.fail),
            "queue": _duration(work.queue),
            "compute_input": _duration(work.prepare),
            "compute_infer": _duration(work.compute),
            "compute_output": _duration(work.finish),
        },
        batch_stats=[
            {"batch_size": size, "compute_infer": _duration(work.batches[size])} for size in sorted(work.batches)
        ],
    )


def _duration(total: Total) -> dict[str, int]:
    return {"count": total.count, "ns": total.ns}


def _described(operation: str, spec: AutoencoderSpec) -> dict[str, str]:
    """Return as texts what the fields of a ModelConfig have no place for."""
    known = ENCODE_PARAMETERS if operation == ENCODE else DECODE_PARAMETERS
    return {
        "class_name": spec.class_name,
        "latent_space": spec.latent_space,
        "weights_digest": spec.weights_digest,
        "scale": ",".join(map(str, spec.scale)),
        "shift": ",".join(map(str, spec.shift)),
        "downsample_factor": str(spec.downsample_factor),
        "dtype": spec.dtype,
        "request_parameters": ",".join(known),
        "datatypes": f"IMAGE: {','.join(DTYPES)} (UINT8 is NHWC, the others NCHW); LATENTS: {','.join(FLOATS)}",
    }
