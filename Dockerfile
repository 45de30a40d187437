# SPDX-License-Identifier: Apache-2.0
#
# The server. For a CPU:       docker build --tag latentwire .
# For an NVIDIA GPU:           docker build --tag latentwire:cuda --build-arg TORCH_BACKEND=cu130 .
# To run it:                   docker run --publish 50051:50051 latentwire
# With a model of your own:    docker run --publish 50051:50051 --volume /path/to/vae:/models/vae:ro latentwire --model vae=/models/vae
#
# Every option of `latentwire serve` is also a variable, as in `--env LATENTWIRE_TOKEN`; with TLS or another port, say how
# to ask for its health: `--health-cmd "latentwire health --tls --server HOST:PORT"`.
#
# It drains for up to 60 s when stopped; docker waits 10 s unless told `docker stop --time 70`.

FROM python:3.11-slim AS build

# Which build of torch: `cpu`, or a CUDA version such as `cu130`.
ARG TORCH_BACKEND=cpu

ENV VIRTUAL_ENV=/opt/latentwire UV_PYTHON_DOWNLOADS=never UV_NO_CACHE=1
RUN pip install --no-cache-dir uv==0.13.9 && uv venv "${VIRTUAL_ENV}"

WORKDIR /src
# The dependencies are a layer of their own: a change of the sources does not fetch torch again.
COPY pyproject.toml constraints.txt ./
RUN uv pip install --torch-backend "${TORCH_BACKEND}" --constraint constraints.txt --requirement pyproject.toml --extra server

COPY LICENSE README.md ./
COPY client client
COPY codec codec
COPY proto proto
COPY server server
RUN uv pip install --no-deps .


FROM python:3.11-slim

# OpenMP, with which numba shares its loops out to the cores.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends libgomp1 && rm -rf /var/lib/apt/lists/*
RUN useradd --uid 10001 --user-group --create-home latentwire
COPY --from=build /opt/latentwire /opt/latentwire

ENV PATH=/opt/latentwire/bin:$PATH PYTHONUNBUFFERED=1
# By number, so that an orchestrator can see that it is not root.
USER 10001
WORKDIR /home/latentwire
EXPOSE 50051

HEALTHCHECK --interval=15s --timeout=10s --start-period=120s --retries=3 CMD ["sh", "-c", "latentwire health || exit 1"]
ENTRYPOINT ["latentwire", "serve", "--host", "0.0.0.0"]
