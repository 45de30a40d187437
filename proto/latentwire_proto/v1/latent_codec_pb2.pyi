from google.rpc import status_pb2 as _status_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DTYPE_UNSPECIFIED: _ClassVar[DType]
    DTYPE_FLOAT32: _ClassVar[DType]
    DTYPE_FLOAT16: _ClassVar[DType]
    DTYPE_BFLOAT16: _ClassVar[DType]
    DTYPE_UINT8: _ClassVar[DType]

class ImageLayout(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    IMAGE_LAYOUT_UNSPECIFIED: _ClassVar[ImageLayout]
    IMAGE_LAYOUT_UINT8_NHWC: _ClassVar[ImageLayout]
    IMAGE_LAYOUT_FLOAT_NCHW: _ClassVar[ImageLayout]

class LatentKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LATENT_KIND_UNSPECIFIED: _ClassVar[LatentKind]
    LATENT_KIND_MODE: _ClassVar[LatentKind]
    LATENT_KIND_SAMPLE: _ClassVar[LatentKind]
    LATENT_KIND_MOMENTS: _ClassVar[LatentKind]

class LatentScale(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LATENT_SCALE_UNSPECIFIED: _ClassVar[LatentScale]
    LATENT_SCALE_RAW: _ClassVar[LatentScale]
    LATENT_SCALE_SCALED: _ClassVar[LatentScale]

class LatQuality(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LAT_QUALITY_UNSPECIFIED: _ClassVar[LatQuality]
    LAT_QUALITY_LOSSLESS: _ClassVar[LatQuality]
    LAT_QUALITY_CACHE: _ClassVar[LatQuality]
    LAT_QUALITY_HIGH: _ClassVar[LatQuality]
    LAT_QUALITY_MEDIUM: _ClassVar[LatQuality]
    LAT_QUALITY_LOW: _ClassVar[LatQuality]

class ImageFormat(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    IMAGE_FORMAT_UNSPECIFIED: _ClassVar[ImageFormat]
    IMAGE_FORMAT_PNG: _ClassVar[ImageFormat]
    IMAGE_FORMAT_JPEG: _ClassVar[ImageFormat]
    IMAGE_FORMAT_WEBP: _ClassVar[ImageFormat]
    IMAGE_FORMAT_AVIF: _ClassVar[ImageFormat]
DTYPE_UNSPECIFIED: DType
DTYPE_FLOAT32: DType
DTYPE_FLOAT16: DType
DTYPE_BFLOAT16: DType
DTYPE_UINT8: DType
IMAGE_LAYOUT_UNSPECIFIED: ImageLayout
IMAGE_LAYOUT_UINT8_NHWC: ImageLayout
IMAGE_LAYOUT_FLOAT_NCHW: ImageLayout
LATENT_KIND_UNSPECIFIED: LatentKind
LATENT_KIND_MODE: LatentKind
LATENT_KIND_SAMPLE: LatentKind
LATENT_KIND_MOMENTS: LatentKind
LATENT_SCALE_UNSPECIFIED: LatentScale
LATENT_SCALE_RAW: LatentScale
LATENT_SCALE_SCALED: LatentScale
LAT_QUALITY_UNSPECIFIED: LatQuality
LAT_QUALITY_LOSSLESS: LatQuality
LAT_QUALITY_CACHE: LatQuality
LAT_QUALITY_HIGH: LatQuality
LAT_QUALITY_MEDIUM: LatQuality
LAT_QUALITY_LOW: LatQuality
IMAGE_FORMAT_UNSPECIFIED: ImageFormat
IMAGE_FORMAT_PNG: ImageFormat
IMAGE_FORMAT_JPEG: ImageFormat
IMAGE_FORMAT_WEBP: ImageFormat
IMAGE_FORMAT_AVIF: ImageFormat

class Tensor(_message.Message):
    __slots__ = ("dtype", "shape", "data")
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    dtype: DType
    shape: _containers.RepeatedScalarFieldContainer[int]
    data: bytes
    def __init__(self, dtype: _Optional[_Union[DType, str]] = ..., shape: _Optional[_Iterable[int]] = ..., data: _Optional[bytes] = ...) -> None: ...

class ImageTensor(_message.Message):
    __slots__ = ("tensor", "layout")
    TENSOR_FIELD_NUMBER: _ClassVar[int]
    LAYOUT_FIELD_NUMBER: _ClassVar[int]
    tensor: Tensor
    layout: ImageLayout
    def __init__(self, tensor: _Optional[_Union[Tensor, _Mapping]] = ..., layout: _Optional[_Union[ImageLayout, str]] = ...) -> None: ...

class ImageSize(_message.Message):
    __slots__ = ("height", "width")
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    height: int
    width: int
    def __init__(self, height: _Optional[int] = ..., width: _Optional[int] = ...) -> None: ...

class Latents(_message.Message):
    __slots__ = ("values", "logvar", "kind", "scale", "image_size", "model", "latent_space", "weights_digest")
    VALUES_FIELD_NUMBER: _ClassVar[int]
    LOGVAR_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    SCALE_FIELD_NUMBER: _ClassVar[int]
    IMAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    LATENT_SPACE_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_DIGEST_FIELD_NUMBER: _ClassVar[int]
    values: Tensor
    logvar: Tensor
    kind: LatentKind
    scale: LatentScale
    image_size: ImageSize
    model: str
    latent_space: str
    weights_digest: str
    def __init__(self, values: _Optional[_Union[Tensor, _Mapping]] = ..., logvar: _Optional[_Union[Tensor, _Mapping]] = ..., kind: _Optional[_Union[LatentKind, str]] = ..., scale: _Optional[_Union[LatentScale, str]] = ..., image_size: _Optional[_Union[ImageSize, _Mapping]] = ..., model: _Optional[str] = ..., latent_space: _Optional[str] = ..., weights_digest: _Optional[str] = ...) -> None: ...

class LatPayloads(_message.Message):
    __slots__ = ("payloads",)
    PAYLOADS_FIELD_NUMBER: _ClassVar[int]
    payloads: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, payloads: _Optional[_Iterable[bytes]] = ...) -> None: ...

class EncodeRequest(_message.Message):
    __slots__ = ("model", "image_file", "image_tensor", "target_size", "latents", "lat")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FILE_FIELD_NUMBER: _ClassVar[int]
    IMAGE_TENSOR_FIELD_NUMBER: _ClassVar[int]
    TARGET_SIZE_FIELD_NUMBER: _ClassVar[int]
    LATENTS_FIELD_NUMBER: _ClassVar[int]
    LAT_FIELD_NUMBER: _ClassVar[int]
    model: str
    image_file: bytes
    image_tensor: ImageTensor
    target_size: ImageSize
    latents: LatentOutput
    lat: LatOutput
    def __init__(self, model: _Optional[str] = ..., image_file: _Optional[bytes] = ..., image_tensor: _Optional[_Union[ImageTensor, _Mapping]] = ..., target_size: _Optional[_Union[ImageSize, _Mapping]] = ..., latents: _Optional[_Union[LatentOutput, _Mapping]] = ..., lat: _Optional[_Union[LatOutput, _Mapping]] = ...) -> None: ...

class LatentOutput(_message.Message):
    __slots__ = ("kind", "scale", "dtype", "seeds")
    KIND_FIELD_NUMBER: _ClassVar[int]
    SCALE_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    SEEDS_FIELD_NUMBER: _ClassVar[int]
    kind: LatentKind
    scale: LatentScale
    dtype: DType
    seeds: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, kind: _Optional[_Union[LatentKind, str]] = ..., scale: _Optional[_Union[LatentScale, str]] = ..., dtype: _Optional[_Union[DType, str]] = ..., seeds: _Optional[_Iterable[int]] = ...) -> None: ...

class LatOutput(_message.Message):
    __slots__ = ("quality", "step", "refinement")
    QUALITY_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    REFINEMENT_FIELD_NUMBER: _ClassVar[int]
    quality: LatQuality
    step: float
    refinement: int
    def __init__(self, quality: _Optional[_Union[LatQuality, str]] = ..., step: _Optional[float] = ..., refinement: _Optional[int] = ...) -> None: ...

class EncodeResponse(_message.Message):
    __slots__ = ("latents", "lat", "execution")
    LATENTS_FIELD_NUMBER: _ClassVar[int]
    LAT_FIELD_NUMBER: _ClassVar[int]
    EXECUTION_FIELD_NUMBER: _ClassVar[int]
    latents: Latents
    lat: LatPayloads
    execution: Execution
    def __init__(self, latents: _Optional[_Union[Latents, _Mapping]] = ..., lat: _Optional[_Union[LatPayloads, _Mapping]] = ..., execution: _Optional[_Union[Execution, _Mapping]] = ...) -> None: ...

class DecodeRequest(_message.Message):
    __slots__ = ("model", "latents", "lat", "image_tensor", "image_files")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    LATENTS_FIELD_NUMBER: _ClassVar[int]
    LAT_FIELD_NUMBER: _ClassVar[int]
    IMAGE_TENSOR_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FILES_FIELD_NUMBER: _ClassVar[int]
    model: str
    latents: Latents
    lat: LatPayloads
    image_tensor: ImageTensorOutput
    image_files: ImageFileOutput
    def __init__(self, model: _Optional[str] = ..., latents: _Optional[_Union[Latents, _Mapping]] = ..., lat: _Optional[_Union[LatPayloads, _Mapping]] = ..., image_tensor: _Optional[_Union[ImageTensorOutput, _Mapping]] = ..., image_files: _Optional[_Union[ImageFileOutput, _Mapping]] = ...) -> None: ...

class ImageTensorOutput(_message.Message):
    __slots__ = ("layout", "dtype")
    LAYOUT_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    layout: ImageLayout
    dtype: DType
    def __init__(self, layout: _Optional[_Union[ImageLayout, str]] = ..., dtype: _Optional[_Union[DType, str]] = ...) -> None: ...

class ImageFileOutput(_message.Message):
    __slots__ = ("format", "quality")
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    QUALITY_FIELD_NUMBER: _ClassVar[int]
    format: ImageFormat
    quality: int
    def __init__(self, format: _Optional[_Union[ImageFormat, str]] = ..., quality: _Optional[int] = ...) -> None: ...

class ImageFiles(_message.Message):
    __slots__ = ("files",)
    FILES_FIELD_NUMBER: _ClassVar[int]
    files: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, files: _Optional[_Iterable[bytes]] = ...) -> None: ...

class DecodeResponse(_message.Message):
    __slots__ = ("image_tensor", "image_files", "execution")
    IMAGE_TENSOR_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FILES_FIELD_NUMBER: _ClassVar[int]
    EXECUTION_FIELD_NUMBER: _ClassVar[int]
    image_tensor: ImageTensor
    image_files: ImageFiles
    execution: Execution
    def __init__(self, image_tensor: _Optional[_Union[ImageTensor, _Mapping]] = ..., image_files: _Optional[_Union[ImageFiles, _Mapping]] = ..., execution: _Optional[_Union[Execution, _Mapping]] = ...) -> None: ...

class EncodeStreamRequest(_message.Message):
    __slots__ = ("id", "request", "timeout_ns")
    ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_NS_FIELD_NUMBER: _ClassVar[int]
    id: int
    request: EncodeRequest
    timeout_ns: int
    def __init__(self, id: _Optional[int] = ..., request: _Optional[_Union[EncodeRequest, _Mapping]] = ..., timeout_ns: _Optional[int] = ...) -> None: ...

class EncodeStreamResponse(_message.Message):
    __slots__ = ("id", "result", "error")
    ID_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    id: int
    result: EncodeResponse
    error: _status_pb2.Status
    def __init__(self, id: _Optional[int] = ..., result: _Optional[_Union[EncodeResponse, _Mapping]] = ..., error: _Optional[_Union[_status_pb2.Status, _Mapping]] = ...) -> None: ...

class DecodeStreamRequest(_message.Message):
    __slots__ = ("id", "request", "timeout_ns")
    ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_NS_FIELD_NUMBER: _ClassVar[int]
    id: int
    request: DecodeRequest
    timeout_ns: int
    def __init__(self, id: _Optional[int] = ..., request: _Optional[_Union[DecodeRequest, _Mapping]] = ..., timeout_ns: _Optional[int] = ...) -> None: ...

class DecodeStreamResponse(_message.Message):
    __slots__ = ("id", "result", "error")
    ID_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    id: int
    result: DecodeResponse
    error: _status_pb2.Status
    def __init__(self, id: _Optional[int] = ..., result: _Optional[_Union[DecodeResponse, _Mapping]] = ..., error: _Optional[_Union[_status_pb2.Status, _Mapping]] = ...) -> None: ...

class Execution(_message.Message):
    __slots__ = ("queue_ns", "compute_ns", "coding_ns", "batch_size", "float32_retry", "model", "weights_digest", "approximate_tiling")
    QUEUE_NS_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_NS_FIELD_NUMBER: _ClassVar[int]
    CODING_NS_FIELD_NUMBER: _ClassVar[int]
    BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    FLOAT32_RETRY_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_DIGEST_FIELD_NUMBER: _ClassVar[int]
    APPROXIMATE_TILING_FIELD_NUMBER: _ClassVar[int]
    queue_ns: int
    compute_ns: int
    coding_ns: int
    batch_size: int
    float32_retry: bool
    model: str
    weights_digest: str
    approximate_tiling: bool
    def __init__(self, queue_ns: _Optional[int] = ..., compute_ns: _Optional[int] = ..., coding_ns: _Optional[int] = ..., batch_size: _Optional[int] = ..., float32_retry: _Optional[bool] = ..., model: _Optional[str] = ..., weights_digest: _Optional[str] = ..., approximate_tiling: _Optional[bool] = ...) -> None: ...

class GetServerInfoRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetServerInfoResponse(_message.Message):
    __slots__ = ("version", "limits", "models")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    version: str
    limits: Limits
    models: _containers.RepeatedCompositeFieldContainer[ModelInfo]
    def __init__(self, version: _Optional[str] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ..., models: _Optional[_Iterable[_Union[ModelInfo, _Mapping]]] = ...) -> None: ...

class Limits(_message.Message):
    __slots__ = ("max_message_bytes", "max_image_side", "max_image_pixels", "max_batch_images", "max_queue_images", "stream_window", "max_refinement")
    MAX_MESSAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_IMAGE_SIDE_FIELD_NUMBER: _ClassVar[int]
    MAX_IMAGE_PIXELS_FIELD_NUMBER: _ClassVar[int]
    MAX_BATCH_IMAGES_FIELD_NUMBER: _ClassVar[int]
    MAX_QUEUE_IMAGES_FIELD_NUMBER: _ClassVar[int]
    STREAM_WINDOW_FIELD_NUMBER: _ClassVar[int]
    MAX_REFINEMENT_FIELD_NUMBER: _ClassVar[int]
    max_message_bytes: int
    max_image_side: int
    max_image_pixels: int
    max_batch_images: int
    max_queue_images: int
    stream_window: int
    max_refinement: int
    def __init__(self, max_message_bytes: _Optional[int] = ..., max_image_side: _Optional[int] = ..., max_image_pixels: _Optional[int] = ..., max_batch_images: _Optional[int] = ..., max_queue_images: _Optional[int] = ..., stream_window: _Optional[int] = ..., max_refinement: _Optional[int] = ...) -> None: ...

class ModelInfo(_message.Message):
    __slots__ = ("name", "class_name", "latent_space", "weights_digest", "file_sha256", "latent_channels", "downsample_factor", "scale", "shift", "has_logvar", "fixed_size", "parameters", "dtype", "device", "config_json", "loaded", "rewrites")
    NAME_FIELD_NUMBER: _ClassVar[int]
    CLASS_NAME_FIELD_NUMBER: _ClassVar[int]
    LATENT_SPACE_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_DIGEST_FIELD_NUMBER: _ClassVar[int]
    FILE_SHA256_FIELD_NUMBER: _ClassVar[int]
    LATENT_CHANNELS_FIELD_NUMBER: _ClassVar[int]
    DOWNSAMPLE_FACTOR_FIELD_NUMBER: _ClassVar[int]
    SCALE_FIELD_NUMBER: _ClassVar[int]
    SHIFT_FIELD_NUMBER: _ClassVar[int]
    HAS_LOGVAR_FIELD_NUMBER: _ClassVar[int]
    FIXED_SIZE_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    CONFIG_JSON_FIELD_NUMBER: _ClassVar[int]
    LOADED_FIELD_NUMBER: _ClassVar[int]
    REWRITES_FIELD_NUMBER: _ClassVar[int]
    name: str
    class_name: str
    latent_space: str
    weights_digest: str
    file_sha256: str
    latent_channels: int
    downsample_factor: int
    scale: _containers.RepeatedScalarFieldContainer[float]
    shift: _containers.RepeatedScalarFieldContainer[float]
    has_logvar: bool
    fixed_size: ImageSize
    parameters: int
    dtype: DType
    device: str
    config_json: str
    loaded: bool
    rewrites: bool
    def __init__(self, name: _Optional[str] = ..., class_name: _Optional[str] = ..., latent_space: _Optional[str] = ..., weights_digest: _Optional[str] = ..., file_sha256: _Optional[str] = ..., latent_channels: _Optional[int] = ..., downsample_factor: _Optional[int] = ..., scale: _Optional[_Iterable[float]] = ..., shift: _Optional[_Iterable[float]] = ..., has_logvar: _Optional[bool] = ..., fixed_size: _Optional[_Union[ImageSize, _Mapping]] = ..., parameters: _Optional[int] = ..., dtype: _Optional[_Union[DType, str]] = ..., device: _Optional[str] = ..., config_json: _Optional[str] = ..., loaded: _Optional[bool] = ..., rewrites: _Optional[bool] = ...) -> None: ...
