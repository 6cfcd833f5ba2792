# Two stages: pip, a C compiler and a shell stay behind; what ships has Python, the package and
# nothing to log in to. Both images are Debian 12 with Python 3.11, which compiled code depends on.
# Tags move: docs/image.md says how to pin both images by digest.
ARG BUILD_IMAGE=docker.io/library/python:3.11.14-bookworm
ARG RUNTIME_IMAGE=gcr.io/distroless/python3-debian12:nonroot

FROM ${BUILD_IMAGE} AS build
# what EVENT_SCHEMA needs, 15 MB; --build-arg EXTRAS= leaves it out
ARG EXTRAS=schema
# mypyc compiles what an event passes through; --build-arg ESTAT_COMPILE=0 leaves it as source, and
# needs no compiler: the slim image will do
ARG ESTAT_COMPILE=1
WORKDIR /src
COPY setup.cfg setup.py pyproject.toml README.md LICENSE ./
COPY conf ./conf
COPY estat ./estat
# Nothing is taken from an index but files with the hashes that "make pins" wrote. /tools has what
# builds the package and lists what is in the image: a CycloneDX SBOM of the environment /list, which
# has nothing but /app. The secret is optional: a pip.conf for who has a package index of his own.
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    if [ -z "${EXTRAS}" ]; then sed -i '/^jsonschema_rs==/d' conf/image/requirements.txt; fi \
    && python3 -m venv --without-pip /tools && python3 -m venv --without-pip /list \
    && pip="python3 -m pip --python /tools --disable-pip-version-check install --no-cache-dir" \
    && $pip --require-hashes --requirement conf/image/build.txt \
    && $pip --no-compile --target /app --require-hashes --requirement conf/image/requirements.txt \
    && $pip --no-compile --target /app --no-deps --no-build-isolation . \
    && echo /app > /list/lib/python3.11/site-packages/app.pth \
    && python3 -m pip --python /list check \
    && /tools/bin/cyclonedx-py environment --output-reproducible --output-file /app/sbom.cdx.json /list
# What no import reaches: scripts for this stage's Python, libraries' own tests, and botocore's
# descriptions of all services but S3 and those that credentials come from. Bytecode is made
# here, for the image is read-only; it is never held against its source, whose time may change.
RUN rm -rf /app/bin /app/boto3/examples \
    && find /app -type d -name tests -prune -exec rm -rf {} + \
    && find /app -type f \( -name '*.c' -o -name '*.cpp' -o -name '*.h' -o -name '*.hpp' \
        -o -name '*.pyx' -o -name '*.pxd' \) -delete \
    && find /app/botocore/data -mindepth 1 -maxdepth 1 -type d ! -name s3 ! -name sts \
        ! -name sso ! -name sso-oidc ! -name signin -exec rm -rf {} + \
    && python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash /app \
    && mkdir -p /state/dlq && chown -R 65532:65532 /state

FROM ${RUNTIME_IMAGE}
ARG RUNTIME_IMAGE
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="estat-ingest" \
      org.opencontainers.image.description="Takes events over HTTP and puts every accepted one into S3" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="${RUNTIME_IMAGE}"
COPY --from=build /app /app
COPY --from=build --chown=65532:65532 /state /var/lib/estat
# the working directory is read-only and no place for modules of somebody else's
ENV PYTHONPATH=/app \
    PYTHONSAFEPATH=1 \
    PYTHONUNBUFFERED=1 \
    DLQ_DIR=/var/lib/estat/dlq
WORKDIR /app
# Fails the build where this Python can't load what the other one installed. And it leaves the
# bytecode of the standard library's modules, of which this image has none: without, each health
# check takes three times the CPU.
USER 0:0
RUN ["/usr/bin/python3", "-c", "from estat.cli import audit, check, demo, dlq, health, init, main, send; import estat.server.worker, estat.web.app, boto3"]
ENV PYTHONDONTWRITEBYTECODE=1
# by number, so that an orchestrator can see that it is not root
USER 65532:65532
# after the directory has its owner: a new volume takes it over, also on Fargate
VOLUME ["/var/lib/estat"]
EXPOSE 8080
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s --retries=3 \
    CMD ["/usr/bin/python3", "-m", "estat.cli.health"]
# "serve" checks the settings and then becomes gunicorn, so SIGTERM reaches it as process 1
ENTRYPOINT ["/usr/bin/python3", "-m", "estat", "serve"]
