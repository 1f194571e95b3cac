# The bot's image: the locked packages and git, without build tools.
#
#   docker build --build-arg VERSION=0.1.0 --build-arg REVISION="$(git rev-parse HEAD)" --tag stoker .
#   docker run --read-only --tmpfs /tmp --volume stoker:/var/lib/stoker --env-file .env stoker

FROM python:3.13-slim-trixie@sha256:8d9d0b8bcf6506481eae4907c18f5e3e7902e629f5f6d684f9e7c32e85e3ddf0 AS base


# All locked packages, including the development tools: hatchling builds the wheel, uv installs it.
FROM base AS build
WORKDIR /src
COPY requirements.lock ./
RUN python -m venv /tools \
 && /tools/bin/pip install --no-cache-dir --disable-pip-version-check --no-deps --require-hashes --requirement requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY bot ./bot
COPY commands ./commands
COPY manifests ./manifests
COPY sandbox ./sandbox
# The final packages: only the dependencies in pyproject.toml, at the locked versions and hashes. Bytecode is compiled here, because the
# root file system is read-only at run time.
RUN python -m venv --without-pip /opt/stoker \
 && /tools/bin/hatchling build --target wheel --directory /dist \
 && /tools/bin/uv pip install --no-cache --python /opt/stoker --require-hashes --no-build --compile-bytecode \
      --constraint requirements.lock --requirements pyproject.toml --extra otel \
 && /tools/bin/uv pip install --no-cache --python /opt/stoker --no-deps --compile-bytecode /dist/*.whl


FROM base
ARG VERSION=0.0.0
ARG REVISION=unknown
ARG CREATED=1970-01-01T00:00:00Z
LABEL org.opencontainers.image.title="Stoker" \
      org.opencontainers.image.description="A Slack bot that brings the vLLM models of one shared GPU up and down" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}" \
      org.opencontainers.image.base.name="docker.io/library/python:3.13-slim-trixie"
# Debian keeps one version of git per release, so a pinned version would disappear with the next security update.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends ca-certificates git \
 && rm -rf /var/lib/apt/lists/* /usr/local/lib/python3.13/site-packages/pip* \
      /usr/local/lib/python3.13/ensurepip /usr/local/bin/pip* \
 && groupadd --system --gid 10001 stoker \
 && useradd --system --uid 10001 --gid stoker --no-create-home --home-dir /tmp --shell /usr/sbin/nologin stoker \
 && install --directory --owner=stoker --group=stoker --mode=0700 /var/lib/stoker
COPY --from=build /opt/stoker /opt/stoker
ENV PATH=/opt/stoker/bin:$PATH \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    STOKER_DATA_DIR=/var/lib/stoker
USER 10001:10001
WORKDIR /var/lib/stoker
VOLUME /var/lib/stoker
EXPOSE 8080
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s \
  CMD ["python", "-c", "import os, urllib.request as http; http.urlopen(f\"http://127.0.0.1:{os.getenv('STOKER_PORT', '8080')}/healthz\", timeout=4)"]
ENTRYPOINT ["stoker"]
CMD ["run"]
