# SPDX-License-Identifier: Apache-2.0
"""ModelInferRequest -> what it asks of the engine; the engine's result -> ModelInferResponse.

A served model NAME is two models of the protocol, as tensors have fixed names there:

    NAME.encode   IMAGE or IMAGE_FILE -> LATENTS, LOGVAR
    NAME.decode   LATENTS -> IMAGE or IMAGE_FILE

IMAGE is UINT8 (B,H,W,3), or FP32, FP16 or BF16 (B,3,H,W) in [-1,1]; IMAGE_FILE is BYTES (B,1) or (B,), a file each;
LATENTS and LOGVAR are FP32, FP16 or BF16 (B,C,h,w). A request names the outputs that it wants: without, it gets LATENTS
or IMAGE. What else it wants stand in its parameters: `ENCODE_PARAMETERS`, `DECODE_PARAMETERS`. The answer's parameters
`height`, `width`, `scale`, `latent_space` and `weights_digest` go into a decode request as they are.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from latentwire_codec.runtime.spec import AutoencoderSpec
from latentwire_core.formats import ImageFormat
from latentwire_core.kinds import LatentKind
from latentwire_server.doors.oip.tensors import DTYPES, FLOATS, TO_DATATYPE, Value, from_values, to_value
from latentwire_server.engine.jobs import DecodeJob, DecodeResult, EncodeJob, EncodeResult, FileOutput
from latentwire_server.errors import InvalidRequest

T = TypeVar("T")

ENCODE, DECODE = "encode", "decode"
IMAGE, IMAGE_FILE, LATENTS, LOGVAR = "IMAGE", "IMAGE_FILE", "LATENTS", "LOGVAR"

SCALES = {"raw": False, "scaled": True}
KINDS = {"mode": LatentKind.MODE, "sample": LatentKind.SAMPLE}
FORMATS = {str(each): each for each in ImageFormat}
# dtype: of the answer's numbers; seed: of the first image, the next one has seed + 1; height and width: of what an
# image file is scaled and cropped to; timeout: microseconds, 0 for none.
ENCODE_PARAMETERS: Mapping[str, type] = {
    "scale": str,
    "kind": str,
    "seed": int,
    "dtype": str,
    "height": int,
    "width": int,
    "timeout": int,
}
# height and width: of the images, where the latents' are padded.
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


@dataclass(frozen=True)
class Inference:
    """What a request asks for.

    Attributes:
        job: for the engine.
        outputs: names of the tensors that it wants, in this order.
        timeout_s: how long the answer is worth something; None: not said.
    """

    job: EncodeJob | DecodeJob
    outputs: tuple[str, ...]
    timeout_s: float | None


def to_encode(request: Any, model: str, spec: AutoencoderSpec) -> Inference:
    """Map a request to the model `NAME.encode`.

    Args:
        request: the ModelInferRequest.
        model: the served name.
        spec: of that model.

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
    job = EncodeJob(
        model=model,
        image=image,
        target_size=_size(given),
        kind=kind,
        scaled=scaled,
        dtype=_choice(given, "dtype", FLOATS, torch.float32),
        seeds=_seeds(given, kind, len(image)),
    )
    return Inference(job, outputs, _timeout_s(given))


def to_decode(request: Any, model: str, spec: AutoencoderSpec) -> Inference:
    """Map a request to the model `NAME.decode`; as `to_encode`, and raises TensorError for latents of another shape."""
    given = _parameters(request, DECODE_PARAMETERS)
    outputs = _outputs(request, (IMAGE, IMAGE_FILE))
    if len(outputs) > 1:
        raise InvalidRequest("outputs", "IMAGE and IMAGE_FILE are one image in two forms; ask for one of them")
    _, latents = _input(request, (LATENTS,))
    if not isinstance(latents, Tensor) or not latents.is_floating_point():
        raise InvalidRequest("inputs[LATENTS].datatype", f"LATENTS is not of {', '.join(FLOATS)}")
    spec.check_latents(tuple(latents.shape))
    job = DecodeJob(
        model=model,
        latents=latents,
        scaled=_choice(given, "scale", SCALES, False),
        image_size=_size(given),
        latent_space=given.get("latent_space", ""),
        weights_digest=given.get("weights_digest", ""),
        output=_file_output(given) if outputs == (IMAGE_FILE,) else _tensor_output(given),
    )
    return Inference(job, outputs, _timeout_s(given))


TO_INFERENCE: Mapping[str, Callable[[Any, str, AutoencoderSpec], Inference]] = {ENCODE: to_encode, DECODE: to_decode}


def from_result(result: EncodeResult | DecodeResult, outputs: Sequence[str]) -> Any:
    """Map a result to a ModelInferResponse with these outputs, and nothing said of the model and the request yet."""
    if isinstance(result, DecodeResult):
        images = tuple(result.images) if isinstance(result.images, list) else result.images
        return from_values(dict.fromkeys(outputs, images))
    values: dict[str, Value] = {LATENTS: result.values}
    if result.logvar is not None:
        values[LOGVAR] = result.logvar
    response = from_values({name: values[name] for name in outputs})
    height, width = result.image_size
    response.parameters["height"].int64_param = height
    response.parameters["width"].int64_param = width
    response.parameters["scale"].string_param = "scaled" if result.scaled else "raw"
    response.parameters["latent_space"].string_param = result.latent_space
    response.parameters["weights_digest"].string_param = result.execution.weights_digest
    return response


def _parameters(request: Any, known: Mapping[str, type]) -> dict[str, Any]:
    """Map the request's parameters to plain values, each known by name and of the type that it needs."""
    given: dict[str, Any] = {}
    for name, parameter in request.parameters.items():
        field = f"parameters[{name}]"
        if name not in known:
            raise InvalidRequest(field, f"parameter {name!r} is unknown; {request.model_name} takes {', '.join(known)}")
        choice = parameter.WhichOneof("parameter_choice")
        value = None if choice is None else getattr(parameter, choice)
        if type(value) is not known[name]:
            wanted = "a whole number" if known[name] is int else "a string"
            raise InvalidRequest(field, f"{name} is {value!r}; it must be {wanted}")
        given[name] = value
    return given


def _input(request: Any, allowed: Sequence[str]) -> tuple[str, Value]:
    """Return the name and the elements of the request's only input."""
    names = [tensor.name for tensor in request.inputs]
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
    """Return the names of the outputs that are wanted; the first of those allowed where the request names none."""
    names = [tensor.name for tensor in request.outputs]
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
    """Check that images have the form that their input's name and their datatype say."""
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
    shape = tuple(value.shape)
    fits, wanted = value.ndim == 4 and shape[1] == 3, "(B,3,H,W)"
    if value.dtype == torch.uint8:
        fits, wanted = value.ndim == 4 and shape[3] == 3, "(B,H,W,3)"
    if not fits:
        raise InvalidRequest(
            "inputs[IMAGE].shape", f"IMAGE has the shape {shape}; {TO_DATATYPE[value.dtype]} is of the shape {wanted}"
        )
    return value


def _choice(given: Mapping[str, Any], name: str, table: Mapping[str, T], default: T) -> T:
    """Look a parameter's word up, or refuse it with the words that would do."""
    if name not in given:
        return default
    if given[name] not in table:
        raise InvalidRequest(f"parameters[{name}]", f"{name} is {given[name]!r}; it must be {' or '.join(table)}")
    return table[given[name]]


def _size(given: Mapping[str, Any]) -> tuple[int, int] | None:
    """Map height and width, in pixels, to a size."""
    if "height" not in given and "width" not in given:
        return None
    height, width = given.get("height", 0), given.get("width", 0)
    if min(height, width) < 1:
        raise InvalidRequest(
            "parameters[height]", f"height is {height}, width {width}; give both, each at least 1, or neither"
        )
    return height, width


def _seeds(given: Mapping[str, Any], kind: LatentKind, images: int) -> tuple[int, ...]:
    """Map the seed of the first image to one for each."""
    if kind is not LatentKind.SAMPLE:
        if "seed" in given:
            raise InvalidRequest("parameters[seed]", f"seed is {given['seed']}, but it is for kind sample only")
        return ()
    first = given.get("seed", -1)
    if not 0 <= first <= 2**64 - images:
        told = f"seed is {first}" if "seed" in given else "there is no seed"
        raise InvalidRequest("parameters[seed]", f"{told}; kind sample needs one in 0..{2**64 - images}")
    return tuple(range(first, first + images))


def _tensor_output(given: Mapping[str, Any]) -> torch.dtype:
    for name in ("format", "quality"):
        if name in given:
            raise InvalidRequest(f"parameters[{name}]", f"{name} is for files; ask for the output IMAGE_FILE")
    return _choice(given, "dtype", DTYPES, torch.uint8)


def _file_output(given: Mapping[str, Any]) -> FileOutput:
    if "dtype" in given:
        raise InvalidRequest("parameters[dtype]", "dtype is for the output IMAGE; a file has a format")
    image_format = _choice(given, "format", FORMATS, ImageFormat.PNG)
    quality = given.get("quality")
    if quality is not None and image_format is ImageFormat.PNG:
        raise InvalidRequest(
            "parameters[quality]", f"quality is {quality}, but PNG is lossless; leave it out, or take another format"
        )
    if quality is not None and not 1 <= quality <= 100:
        raise InvalidRequest("parameters[quality]", f"quality is {quality}; it must be in 1..100")
    return FileOutput(image_format, quality)


def _timeout_s(given: Mapping[str, Any]) -> float | None:
    microseconds: int = given.get("timeout", 0)
    if microseconds < 0:
        raise InvalidRequest("parameters[timeout]", f"timeout is {microseconds}; it must be 0, for none, or above")
    return microseconds / 1e6 or None
