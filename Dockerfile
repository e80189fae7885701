# syntax=docker/dockerfile:1
#
# Two images from one file:
#   docker build --target server -t luthier-server .
#   docker build --target worker -t luthier-worker --build-arg VARIANT=cpu \
#     --build-arg CPU_INDEX_URL=(PyTorch's index of CPU wheels) .
#   docker build --target worker -t luthier-worker:cuda --build-arg VARIANT=cuda .
#
# `server` runs the API, the control worker and migrations, and has no torch; `worker` trains.

ARG PYTHON_IMAGE=python:3.11-slim
ARG NODE_IMAGE=node:22-slim

FROM ${PYTHON_IMAGE} AS base
ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PATH=/opt/luthier/bin:$PATH \
    LUTHIER_DATA_DIR=/var/lib/luthier
RUN useradd --system --uid 10001 --user-group --home-dir /var/lib/luthier --create-home luthier \
    && install -d -o luthier -g luthier /var/lib/luthier/storage /var/lib/luthier/worker
WORKDIR /var/lib/luthier


FROM ${NODE_IMAGE} AS page
WORKDIR /src
COPY ui/ ui/
RUN cd ui && npm ci --no-fund --no-audit && npm run build


FROM ${PYTHON_IMAGE} AS build-server
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
COPY pyproject.toml requirements.lock README.md LICENSE ./
RUN python -m venv /opt/luthier
COPY core/ core/
COPY models/ models/
COPY migrations/ migrations/
COPY ingest/ ingest/
COPY training/ training/
COPY worker/ worker/
COPY api/ api/
COPY server/ server/
COPY --from=page /src/api/static/ api/static/
RUN /opt/luthier/bin/pip install -c requirements.lock .


FROM build-server AS build-worker
ARG VARIANT=cpu
# The plain Linux wheel of torch is CUDA's and brings the GPU libraries along; it runs on a CPU too.
# For the CPU build, gigabytes smaller, name PyTorch's index of CPU wheels.
ARG CPU_INDEX_URL=""
RUN case "$VARIANT" in \
      cpu) index="${CPU_INDEX_URL:+--extra-index-url $CPU_INDEX_URL}" ;; \
      cuda) index="" ;; \
      *) echo "VARIANT is cpu or cuda, not '$VARIANT'" >&2; exit 1 ;; \
    esac \
    && /opt/luthier/bin/pip install -c requirements.lock $index ".[trainer]"


FROM base AS server
COPY --from=build-server /opt/luthier /opt/luthier
USER luthier
ENV LUTHIER_HOST=0.0.0.0 LUTHIER_PORT=8000
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["luthier-server", "health", "api"]
CMD ["luthier-server", "api"]


FROM base AS worker
# Trainers on a CPU are a quarter faster with it: worker/memory.py.
RUN apt-get update && apt-get install -y --no-install-recommends libtcmalloc-minimal4 \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build-worker /opt/luthier /opt/luthier
USER luthier
HEALTHCHECK --interval=30s --timeout=15s --start-period=120s --retries=3 \
    CMD ["luthier-server", "health", "worker"]
STOPSIGNAL SIGTERM
CMD ["luthier-server", "worker"]
