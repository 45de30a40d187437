# SPDX-License-Identifier: Apache-2.0
"""The Open Inference Protocol, version 2: `inference.GRPCInferenceService` on the server's own port, engine and queue.

tritonclient and other clients of the protocol are answered unmodified. `jobs` has the names of the models and of their
tensors. Shared memory, streams, model control and traces are not served: those RPCs are UNIMPLEMENTED.
"""

from functools import partial
from typing import Any

import grpc

from latentwire_core.errors import UnknownModel
from latentwire_proto import __version__
from latentwire_server.config import ServerConfig
from latentwire_server.doors.corridor import Corridor
from latentwire_server.doors.oip import jobs
from latentwire_server.doors.oip import messages as pb
from latentwire_server.doors.oip.jobs import DECODE, ENCODE, VERSION
from latentwire_server.doors.oip.models import to_config, to_metadata, to_statistics
from latentwire_server.engine.engine import Engine
from latentwire_server.engine.jobs import Caller
from latentwire_server.engine.preparing import check_batch
from latentwire_server.engine.shares import most_images
from latentwire_server.engine.work import Passage
from latentwire_server.process.lifecycle import Lifecycle
from latentwire_server.telemetry.metrics import Metrics

SERVICE: str = pb.SERVICE.full_name
PROBES = tuple(f"/{SERVICE}/{method}" for method in ("ServerLive", "ServerReady", "ModelReady"))
"""The paths that probes ask."""
EXTENSIONS = ("model_configuration", "parameters", "statistics")


class OpenInferenceService:
    """Carries out `inference.GRPCInferenceService`; errors leave as exceptions and are mapped by the interceptor."""

    def __init__(self, engine: Engine, config: ServerConfig, lifecycle: Lifecycle, metrics: Metrics) -> None:
        self._engine = engine
        self._config = config
        self._lifecycle = lifecycle
        self._metrics = metrics
        self._corridor = Corridor(engine, metrics)

    def handler(self) -> grpc.GenericRpcHandler:
        """Return the handler of every RPC of the service, for a gRPC server."""
        return grpc.method_handlers_generic_handler(
            SERVICE,
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
        """Return that the server runs."""
        return pb.ServerLiveResponse(live=True)

    async def ServerReady(self, request: Any, context: Any) -> Any:
        """Return whether requests are let in."""
        return pb.ServerReadyResponse(ready=self._lifecycle.is_serving)

    async def ModelReady(self, request: Any, context: Any) -> Any:
        """Return whether a model takes requests; it may have to be loaded first."""
        try:
            self._model(request.name, request.version)
        except UnknownModel:
            return pb.ModelReadyResponse(ready=False)
        return pb.ModelReadyResponse(ready=self._lifecycle.is_serving)

    async def ServerMetadata(self, request: Any, context: Any) -> Any:
        """Return the name, version and extensions of the server."""
        return pb.ServerMetadataResponse(name="latentwire", version=__version__, extensions=EXTENSIONS)

    async def ModelMetadata(self, request: Any, context: Any) -> Any:
        """Return the tensors that a model takes and gives."""
        name, operation = self._model(request.name, request.version)
        return to_metadata(request.name, operation, self._engine.models[name].spec)

    async def ModelConfig(self, request: Any, context: Any) -> Any:
        """Return how a model is set up."""
        name, operation = self._model(request.name, request.version)
        return to_config(request.name, operation, self._engine.models[name].spec, most_images(self._config))

    async def ModelStatistics(self, request: Any, context: Any) -> Any:
        """Return the statistics of one model, or of all; they count the requests of every protocol."""
        models = [self._model(request.name, request.version)] if request.name else self._models()
        return pb.ModelStatisticsResponse(
            model_stats=[to_statistics(".".join(model), self._metrics.statistics.of(*model)) for model in models]
        )

    async def ModelInfer(self, request: Any, context: Any) -> Any:
        """Map images to latents, or latents to images."""
        name, operation = self._model(request.model_name, request.model_version)

        def images() -> int:
            # Count before any list of files or seeds is made: a message can announce millions of empty files.
            number = jobs.count_images(request)
            check_batch(number, self._config)
            return number

        caller = Caller.of(context).within(jobs.timeout_s(request))
        if operation == ENCODE:
            return await self._corridor.encode(
                Passage(
                    model=name,
                    images=images,
                    to_job=lambda model: jobs.to_encode(request, model.spec),
                    to_answer=partial(jobs.from_encode_result, request),
                    fields=jobs.FIELDS,
                ),
                caller,
            )
        return await self._corridor.decode(
            Passage(
                model=name,
                images=images,
                to_job=lambda model: jobs.to_decode(request, model.spec),
                to_answer=partial(jobs.from_decode_result, request),
                fields=jobs.FIELDS,
            ),
            caller,
        )

    def _models(self) -> list[tuple[str, str]]:
        return [(name, operation) for name in self._engine.models for operation in (ENCODE, DECODE)]

    def _model(self, name: str, version: str) -> tuple[str, str]:
        """Map a model's name and version to a served name and an operation.

        Raises:
            UnknownModel: no model has that name, or that version.
        """
        served, _, operation = name.rpartition(".")
        models = self._models()
        if (served, operation) not in models:
            raise UnknownModel(f"no model {name!r} is served here; there is {', '.join(map('.'.join, models))}")
        if version not in ("", VERSION):
            raise UnknownModel(f"{name} has no version {version!r}; there is {VERSION}, or leave it out")
        return served, operation
