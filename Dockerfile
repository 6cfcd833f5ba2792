# Two stages: pip and a compiler's worth of tools stay behind; what ships has Python, the
# package and nothing to log in to. Both images are Debian 12 with Python 3.11.
FROM python:3.11-slim-bookworm AS build
WORKDIR /src
COPY setup.cfg pyproject.toml README.md LICENSE ./
COPY estat ./estat
RUN pip install --no-cache-dir --no-compile --target /app . \
    && mkdir -p /state/dlq && chown -R 65532:65532 /state

FROM gcr.io/distroless/python3-debian12:nonroot
COPY --from=build /app /app
COPY --from=build --chown=65532:65532 /state /var/lib/estat
ENV PYTHONPATH=/app \
    PYTHONUNBUFFERED=1 \
    DLQ_DIR=/var/lib/estat/dlq
WORKDIR /var/lib/estat
VOLUME ["/var/lib/estat"]
EXPOSE 8080
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s --retries=3 \
    CMD ["/usr/bin/python3", "-m", "estat.cli.health"]
# "serve" checks the settings and then becomes gunicorn, so SIGTERM reaches it as process 1
ENTRYPOINT ["/usr/bin/python3", "-m", "estat", "serve"]
