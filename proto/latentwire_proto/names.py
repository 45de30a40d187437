# SPDX-License-Identifier: Apache-2.0
"""Names <-> numbers of the wire's enums; one table for servers and clients."""

from latentwire_proto.v1 import latent_codec_pb2 as pb

KINDS = {"mode": pb.LATENT_KIND_MODE, "sample": pb.LATENT_KIND_SAMPLE, "moments": pb.LATENT_KIND_MOMENTS}
FLOATS = {"float32": pb.DTYPE_FLOAT32, "float16": pb.DTYPE_FLOAT16, "bfloat16": pb.DTYPE_BFLOAT16}
IMAGE_FORMATS = {
    "png": pb.IMAGE_FORMAT_PNG,
    "jpeg": pb.IMAGE_FORMAT_JPEG,
    "webp": pb.IMAGE_FORMAT_WEBP,
    "avif": pb.IMAGE_FORMAT_AVIF,
}
QUALITIES = {
    "lossless": pb.LAT_QUALITY_LOSSLESS,
    "cache": pb.LAT_QUALITY_CACHE,
    "high": pb.LAT_QUALITY_HIGH,
    "medium": pb.LAT_QUALITY_MEDIUM,
    "low": pb.LAT_QUALITY_LOW,
}
