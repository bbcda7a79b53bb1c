# The worker's image; `docker compose build worker` makes it.
FROM python:3.12-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY kgcore kgcore
COPY workers workers
RUN pip wheel --no-cache-dir --wheel-dir /wheels .

FROM python:3.12-slim
RUN --mount=type=bind,from=build,source=/wheels,target=/wheels \
    pip install --no-cache-dir --no-index --find-links /wheels jarvis-kg \
    && useradd --system --create-home --home-dir /var/lib/jarvis-kg jarvis-kg
ENV PYTHONUNBUFFERED=1 KG_DATA_DIR=/var/lib/jarvis-kg/data
USER jarvis-kg
# Made here so that a new volume mounted on it belongs to the user.
RUN mkdir /var/lib/jarvis-kg/data
WORKDIR /var/lib/jarvis-kg
CMD ["kg", "worker"]
