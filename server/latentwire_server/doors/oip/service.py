# SPDX-License-Identifier: Apache-2.0
"""The Open Inference Protocol, version 2: `inference.GRPCInferenceService` on the server's own port, engine and queue.

tritonclient and other clients of the protocol are answered unmodified. What the models and their tensors are called
stands in `oip_jobs`. Shared memory, streams, model control and traces are not served: those RPCs are UNIMPLEMENTED.
"""

from functools import partial
from typing import Any

import grpc

from latentwire_core.errors import UnknownModel
from latentwire_proto import __version__
from latentwire_server.config import ServerConfig
from latentwire_server.doors.oip import messages as pb
from latentwire_server.doors.oip.jobs import DECODE, ENCODE, TO_INFERENCE, from_result
from latentwire_server.doors.oip.models import VERSION, to_config, to_metadata, to_statistics
from latentwire_server.doors.oip.tensors import BYTES
from latentwire_server.engine.admission import most_images
from latentwire_server.engine.coding import check_batch
from latentwire_server.engine.engine import Engine
from latentwire_server.engine.jobs import Caller, EncodeJob
from latentwire_server.process.lifecycle import Lifecycle
from latentwire_server.telemetry.metrics import Metrics

# Of tensors that hold several images, or the latents of several; with fewer the first is no number of images.
IMAGE_AXES = 4
EXTENSIONS = ("model_configuration", "parameters", "statistics")


class OpenInferenceService:
    """Carries out `inference.GRPCInferenceService`; errors leave as exceptions and are mapped by the interceptor."""

    def __init__(self, engine: Engine, config: ServerConfig, lifecycle: Lifecycle, metrics: Metrics) -> None:
        self._engine = engine
        self._config = config
        self._lifecycle = lifecycle
        self._metrics = metrics

    def handler(self) -> grpc.GenericRpcHandler:
        """Return what a gRPC server needs to answer every RPC of the service."""
        return grpc.method_handlers_generic_handler(
            pb.SERVICE.full_name,
            {
                method.name: grpc.unary_unary_rpc_method_handler(
                    getattr(self, method.name),
                    request_deserializer=pb.message_class(method.input_type.name).FromString,
                    response_serializer=pb.message_class(method.output_type.name).SerializeToString,
                )
                for method in pb.SERVICE.methods
            },
        )

    async def ServerLive(self, request: Any, context: Any) -> Any:
        """Say that the server runs."""
        return pb.ServerLiveResponse(live=True)

    async def ServerReady(self, request: Any, context: Any) -> Any:
        """Say whether requests are let in."""
        return pb.ServerReadyResponse(ready=self._lifecycle.is_serving)

    async def ModelReady(self, request: Any, context: Any) -> Any:
        """Say whether a model can be asked; it may have to be loaded then."""
        try:
            self._model(request.name, request.version)
        except UnknownModel:
            return pb.ModelReadyResponse(ready=False)
        return pb.ModelReadyResponse(ready=self._lifecycle.is_serving)

    async def ServerMetadata(self, request: Any, context: Any) -> Any:
        """Say what the server is."""
        return pb.ServerMetadataResponse(name="latentwire", version=__version__, extensions=EXTENSIONS)

    async def ModelMetadata(self, request: Any, context: Any) -> Any:
        """Say which tensors a model takes and gives."""
        name, operation = self._model(request.name, request.version)
        return to_metadata(request.name, operation, self._engine.models[name].spec)

    async def ModelConfig(self, request: Any, context: Any) -> Any:
        """Say how a model is set up."""
        name, operation = self._model(request.name, request.version)
        return to_config(request.name, operation, self._engine.models[name].spec, most_images(self._config))

    async def ModelStatistics(self, request: Any, context: Any) -> Any:
        """Say what one model did, or all, whichever protocol they were asked by."""
        models = [self._model(request.name, request.version)] if request.name else self._models()
        return pb.ModelStatisticsResponse(
            model_stats=[to_statistics(".".join(model), self._metrics.statistics.of(*model)) for model in models]
        )

    async def ModelInfer(self, request: Any, context: Any) -> Any:
        """Map images to latents, or latents to images."""
        name, operation = self._model(request.model_name, request.model_version)
        with self._metrics.conversion(name, operation):
            for tensor in request.inputs[:1]:
                # A message can hold millions of empty files: no list of them, or of their seeds, is made.
                if tensor.datatype == BYTES or len(tensor.shape) == IMAGE_AXES:
                    check_batch(max(tensor.shape[:1], default=0), self._config)
            # Tensors are copied out of and into messages in a thread: up to the size of a message each.
            spec = self._engine.models[name].spec
            inference = await self._engine.aside(partial(TO_INFERENCE[operation], request, name, spec))
        caller = Caller.of(context).within(inference.timeout_s)
        result = (
            await self._engine.encode(inference.job, caller)
            if isinstance(inference.job, EncodeJob)
            else await self._engine.decode(inference.job, caller)
        )
        response = await self._engine.aside(partial(from_result, result, inference.outputs))
        response.model_name, response.model_version, response.id = request.model_name, VERSION, request.id
        return response

    def _models(self) -> list[tuple[str, str]]:
        return [(name, operation) for name in self._engine.models for operation in (ENCODE, DECODE)]

    def _model(self, name: str, version: str) -> tuple[str, str]:
        """Map a model's name and version to a served name and an operation.

        Raises:
            UnknownModel: there is no such model, or not in that version.
        """
        served, _, operation = name.rpartition(".")
        models = self._models()
        if (served, operation) not in models:
            raise UnknownModel(f"no model {name!r} is served here; there is {', '.join(map('.'.join, models))}")
        if version not in ("", VERSION):
            raise UnknownModel(f"{name} has no version {version!r}; there is {VERSION}, or leave it out")
        return served, operation
