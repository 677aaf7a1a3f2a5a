FROM python:3.13-slim AS build
WORKDIR /source
COPY requirements-build.lock ./
RUN pip install --no-cache-dir --require-hashes -r requirements-build.lock
COPY pyproject.toml README.md LICENSE ./
# The package in src is links to the four folders: without all of them the wheel lacks code.
COPY src src
COPY proxy proxy
COPY verifiers verifiers
COPY policies policies
COPY models models
RUN pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels .

FROM python:3.13-slim
ENV PYTHONUNBUFFERED=1
# The sandbox of verifiers that run code. What the container needs for it: docs/security.md.
RUN apt-get update \
    && apt-get install -y --no-install-recommends bubblewrap \
    && rm -rf /var/lib/apt/lists/*
COPY requirements.lock /tmp/requirements.lock
RUN pip install --no-cache-dir --require-hashes -r /tmp/requirements.lock && rm /tmp/requirements.lock
COPY --from=build /wheels /wheels
RUN pip install --no-cache-dir --no-deps --no-index /wheels/*.whl && rm -r /wheels

RUN useradd --system --uid 10001 --create-home --home-dir /var/lib/samplewise samplewise
USER samplewise
# The ledger is written here unless the configuration says otherwise.
WORKDIR /var/lib/samplewise
VOLUME /var/lib/samplewise
EXPOSE 8400

ENTRYPOINT ["samplewise"]
CMD ["serve", "--config", "/etc/samplewise/config.yaml"]
