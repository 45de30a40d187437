# SPDX-License-Identifier: Apache-2.0
"""ModelInferRequest -> job; result -> ModelInferResponse.

A served model NAME is two models of the protocol, as tensors have fixed names there:

    NAME.encode   IMAGE or IMAGE_FILE -> LATENTS, LOGVAR
    NAME.decode   LATENTS -> IMAGE or IMAGE_FILE

IMAGE is UINT8 (B,H,W,3), or FP32, FP16 or BF16 (B,3,H,W) in [-1,1]; IMAGE_FILE is BYTES (B,1) or (B,), a file each;
LATENTS and LOGVAR are FP32, FP16 or BF16 (B,C,h,w). A request names its outputs; one that names no output gets LATENTS
or IMAGE. Its parameters say the rest: `ENCODE_PARAMETERS`, `DECODE_PARAMETERS`. The answer's parameters `height`,
`width`, `scale`, `latent_space` and `weights_digest` go into a decode request as they are.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from latentwire_codec.runtime.spec import AutoencoderSpec
from latentwire_core.formats import ImageFormat
from latentwire_core.kinds import LatentKind
from latentwire_server.doors.oip.tensors import BYTES, DTYPES, FLOATS, TO_DATATYPE, Value, from_values, to_value
from latentwire_server.engine.jobs import DecodeJob, DecodeResult, EncodeJob, EncodeResult, FileOutput
from latentwire_server.errors import InvalidRequest

T = TypeVar("T")

ENCODE, DECODE = "encode", "decode"
IMAGE, IMAGE_FILE, LATENTS, LOGVAR = "IMAGE", "IMAGE_FILE", "LATENTS", "LOGVAR"
# The axes of a tensor that holds several images, or their latents; with fewer the first is no number of images.
IMAGE_AXES = 4
# The only version: the weights of a name stay the same as long as the server runs.
VERSION = "1"

SCALES = {"raw": False, "scaled": True}
KINDS = {"mode": LatentKind.MODE, "sample": LatentKind.SAMPLE}
FORMATS = {str(each): each for each in ImageFormat}
# dtype: the dtype of the answer; seed: the seed of the first image, the next one has seed + 1; height and width: the
# size that an image file is scaled and cropped to; timeout: microseconds, 0 for no limit.
ENCODE_PARAMETERS: Mapping[str, type] = {
    "scale": str,
    "kind": str,
    "seed": int,
    "dtype": str,
    "height": int,
    "width": int,
    "timeout": int,
}
# height and width: the size of the images without the padding.
DECODE_PARAMETERS: Mapping[str, type] = {
    "scale": str,
    "height": int,
    "width": int,
    "latent_space": str,
    "weights_digest": str,
    "dtype": str,
    "format": str,
    "quality": int,
    "timeout": int,
}


# Attribute of a job -> the parameter, or the tensor, that sets it.
FIELDS: Mapping[str, str] = {
    "image_file": "inputs[IMAGE_FILE]",
    "image_tensor": "inputs[IMAGE]",
    "image_tensor.shape": "inputs[IMAGE].shape",
    "target_size": "parameters[height]",
    "scaled": "parameters[scale]",
    "seeds": "parameters[seed]",
    "latents.dtype": "inputs[LATENTS].datatype",
    "image_size": "parameters[height]",
    "image_size.height": "parameters[height]",
    "image_size.width": "parameters[width]",
    "quality": "parameters[quality]",
}


def to_encode(request: Any, spec: AutoencoderSpec) -> EncodeJob:
    """Map a request to the model `NAME.encode`.

    Args:
        request: the ModelInferRequest.
        spec: what the model is.

    Raises:
        InvalidRequest: an input, an output or a parameter is missing, unknown or contradicts another.
    """
    given = _parameters(request, ENCODE_PARAMETERS)
    outputs = _outputs(request, (LATENTS, LOGVAR) if spec.has_logvar else (LATENTS,))
    image = _image(*_input(request, (IMAGE, IMAGE_FILE)))
    kind = _choice(given, "kind", KINDS, LatentKind.MODE)
    scaled = _choice(given, "scale", SCALES, False)
    if LOGVAR in outputs:
        if scaled or kind is LatentKind.SAMPLE:
            raise InvalidRequest(
                "outputs", "LOGVAR belongs to raw moments, LATENTS beside it is the mean; leave kind and scale out"
            )
        kind = LatentKind.MOMENTS
    # The seed is the first image's, the next image has the next one.
    seeds = range(given["seed"], given["seed"] + count_images(request)) if "seed" in given else ()
    return EncodeJob(
        image,
        kind=kind,
        scaled=scaled,
        dtype=_choice(given, "dtype", FLOATS, torch.float32),
        seeds=tuple(seeds),
        target_size=_size(given),
    )


def to_decode(request: Any, spec: AutoencoderSpec) -> DecodeJob:
    """Map a request to the model `NAME.decode`; as `to_encode`.

    Raises:
        InvalidRequest: as `to_encode`.
        TensorError: the model does not take latents of this shape.
    """
    given = _parameters(request, DECODE_PARAMETERS)
    outputs = _outputs(request, (IMAGE, IMAGE_FILE))
    if len(outputs) > 1:
        raise InvalidRequest("outputs", "IMAGE and IMAGE_FILE are one image in two forms; ask for one of them")
    _, latents = _input(request, (LATENTS,))
    if not isinstance(latents, Tensor) or not latents.is_floating_point():
        raise InvalidRequest("inputs[LATENTS].datatype", f"LATENTS takes {', '.join(FLOATS)}")
    spec.check_latents(tuple(latents.shape))
    return DecodeJob(
        latents,
        _file_output(given) if outputs == (IMAGE_FILE,) else _tensor_output(given),
        scaled=_choice(given, "scale", SCALES, False),
        image_size=_size(given),
        latent_space=given.get("latent_space", ""),
        weights_digest=given.get("weights_digest", ""),
    )


def timeout_s(request: Any) -> float | None:
    """Return how long the answer is worth something, by the parameter `timeout`; None: as long as it takes.

    A timeout of another type, or a negative one, is refused when the request is read.
    """
    if "timeout" not in request.parameters:
        return None
    microseconds = int(request.parameters["timeout"].int64_param)
    return microseconds / 1e6 if microseconds > 0 else None


def count_images(request: Any) -> int:
    """Return the number of images that a request's first input announces, at least 1."""
    tensor = request.inputs[0] if request.inputs else None
    if tensor is None or not (tensor.datatype == BYTES or len(tensor.shape) == IMAGE_AXES):
        return 1
    return max(1, int(tensor.shape[0])) if tensor.shape else 1


def from_encode_result(request: Any, result: EncodeResult) -> Any:
    """Map a result to a ModelInferResponse with the outputs that a request names, LATENTS where it names no output."""
    values: dict[str, Value] = {LATENTS: result.values}
    if result.logvar is not None:
        values[LOGVAR] = result.logvar
    response = from_values({name: values[name] for name in _names(request.outputs) or (LATENTS,)})
    height, width = result.image_size
    response.parameters["height"].int64_param = height
    response.parameters["width"].int64_param = width
    response.parameters["scale"].string_param = "scaled" if result.scaled else "raw"
    response.parameters["latent_space"].string_param = result.latent_space
    response.parameters["weights_digest"].string_param = result.execution.weights_digest
    return _addressed(response, request)


def from_decode_result(request: Any, result: DecodeResult) -> Any:
    """Map a result to a ModelInferResponse with the output that a request names, IMAGE where it names no output."""
    images = tuple(result.images) if isinstance(result.images, list) else result.images
    return _addressed(from_values(dict.fromkeys(_names(request.outputs) or (IMAGE,), images)), request)


def _addressed(response: Any, request: Any) -> Any:
    """Say in a response which request, and which model, it is of."""
    response.model_name, response.model_version, response.id = request.model_name, VERSION, request.id
    return response


def _names(tensors: Any) -> tuple[str, ...]:
    return tuple(tensor.name for tensor in tensors)


def _parameters(request: Any, known: Mapping[str, type]) -> dict[str, Any]:
    """Map the request's parameters to plain values; each must have a known name and the right type."""
    given: dict[str, Any] = {}
    for name, parameter in request.parameters.items():
        if name not in known:
            raise InvalidRequest(
                f"parameters[{name}]", f"parameter {name!r} is unknown; {request.model_name} takes {', '.join(known)}"
            )
        choice = parameter.WhichOneof("parameter_choice")
        value = None if choice is None else getattr(parameter, choice)
        if type(value) is not known[name]:
            wanted = "a whole number" if known[name] is int else "a string"
            raise InvalidRequest(f"parameters[{name}]", f"{name} is {value!r}; it must be {wanted}")
        given[name] = value
    if given.get("timeout", 0) < 0:
        raise InvalidRequest(
            "parameters[timeout]", f"timeout is {given['timeout']}; it must be 0, for no limit, or above"
        )
    return given


def _input(request: Any, allowed: Sequence[str]) -> tuple[str, Value]:
    """Return the name and the elements of the request's only input."""
    names = list(_names(request.inputs))
    if len(names) != 1 or names[0] not in allowed:
        raise InvalidRequest(
            "inputs", f"the inputs are {names}; {request.model_name} takes exactly one, {' or '.join(allowed)}"
        )
    (tensor,) = request.inputs
    _check_no_parameters(f"inputs[{tensor.name}]", tensor)
    if len(request.raw_input_contents) > 1:
        raise InvalidRequest(
            "raw_input_contents", f"there are {len(request.raw_input_contents)} raw contents for one input; send one"
        )
    return tensor.name, to_value(tensor, request.raw_input_contents)


def _outputs(request: Any, allowed: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the outputs that a request asks for; by default the first allowed one."""
    names = list(_names(request.outputs))
    if not set(names) <= set(allowed) or len(set(names)) < len(names):
        raise InvalidRequest(
            "outputs", f"the outputs are {names}; {request.model_name} gives {' and '.join(allowed)}, each once"
        )
    for tensor in request.outputs:
        _check_no_parameters(f"outputs[{tensor.name}]", tensor)
    return tuple(names) or (allowed[0],)


def _check_no_parameters(field: str, tensor: Any) -> None:
    if tensor.parameters:
        name = min(tensor.parameters)
        raise InvalidRequest(
            f"{field}.parameters[{name}]",
            f"parameter {name!r} of {tensor.name} is unknown; tensors take none (there is no shared memory), "
            "requests do",
        )


def _image(name: str, value: Value) -> Tensor | tuple[bytes, ...]:
    """Check that images have the datatype that their input takes."""
    if name == IMAGE_FILE:
        if isinstance(value, Tensor):
            raise InvalidRequest(
                "inputs[IMAGE_FILE].datatype",
                f"IMAGE_FILE is {TO_DATATYPE[value.dtype]}; it takes BYTES, a whole file each; pixels go into IMAGE",
            )
        return value
    if not isinstance(value, Tensor):
        raise InvalidRequest(
            "inputs[IMAGE].datatype", f"IMAGE is BYTES; it takes {', '.join(DTYPES)}; files go into IMAGE_FILE"
        )
    return value


def _choice(given: Mapping[str, Any], name: str, table: Mapping[str, T], default: T) -> T:
    """Look a parameter's word up in a table, or refuse it with the words that are accepted."""
    if name not in given:
        return default
    if given[name] not in table:
        raise InvalidRequest(f"parameters[{name}]", f"{name} is {given[name]!r}; it must be {' or '.join(table)}")
    return table[given[name]]


def _size(given: Mapping[str, Any]) -> tuple[int, int] | None:
    """Map the parameters `height` and `width`, in pixels, to a size; return None where both are left out."""
    if "height" not in given and "width" not in given:
        return None
    height, width = given.get("height", 0), given.get("width", 0)
    if min(height, width) < 1:
        raise InvalidRequest(
            "parameters[height]", f"height is {height}, width {width}; give both, each at least 1, or leave both out"
        )
    return height, width


def _tensor_output(given: Mapping[str, Any]) -> torch.dtype:
    for name in ("format", "quality"):
        if name in given:
            raise InvalidRequest(f"parameters[{name}]", f"{name} is for files; ask for the output IMAGE_FILE")
    return _choice(given, "dtype", DTYPES, torch.uint8)


def _file_output(given: Mapping[str, Any]) -> FileOutput:
    if "dtype" in given:
        raise InvalidRequest("parameters[dtype]", "dtype is for the output IMAGE; a file has a format")
    return FileOutput(_choice(given, "format", FORMATS, ImageFormat.PNG), given.get("quality"))
