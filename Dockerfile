# The gateway as an image: nothing but Python, the locked dependencies and the package, run by user 10001, who can
# write to /var/lib/gateway, /var/lib/gateway-keys (keys that replicas share) and /tmp only. docker-compose.yml and
# docs/how-to/deploy.md say how it is meant to be run.
#
# Base images are named by version; pin them by digest (name:tag@sha256:...) in your own registry.

FROM python:3.11.14-slim-bookworm AS build
WORKDIR /src
RUN python -m venv /opt/tools && python -m venv --without-pip /opt/gateway
COPY requirements/bootstrap.lock requirements/runtime.lock requirements/
RUN /opt/tools/bin/pip install --no-cache-dir --require-hashes -r requirements/bootstrap.lock
ENV VIRTUAL_ENV=/opt/gateway UV_NO_CACHE=1 UV_LINK_MODE=copy
RUN /opt/tools/bin/uv pip install --require-hashes --compile-bytecode -r requirements/runtime.lock
COPY pyproject.toml README.md LICENSE ./
COPY gateway gateway
# The lock holds what builds the package too, by hash; it goes once that is done.
RUN /opt/tools/bin/uv pip install --no-deps --no-build-isolation --compile-bytecode . \
    && /opt/tools/bin/uv pip uninstall hatchling editables trove-classifiers pluggy pathspec \
    && /opt/gateway/bin/gateway --help > /dev/null


FROM python:3.11.14-slim-bookworm
LABEL org.opencontainers.image.title="Agent Governance Gateway" \
      org.opencontainers.image.description="One governed, provable path between AI agents and both models and tools." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="0.1.0"
# No installer where nothing is to be installed.
RUN python -m pip uninstall --yes --quiet pip setuptools wheel \
    && groupadd --gid 10001 gateway \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/gateway --shell /usr/sbin/nologin gateway \
    && install --directory --owner=10001 --group=10001 --mode=0700 /var/lib/gateway /var/lib/gateway-keys
COPY --from=build /opt/gateway /opt/gateway
COPY gateway.yaml /etc/gateway/gateway.yaml
COPY policies /etc/gateway/policies
COPY tools_registry /etc/gateway/tools_registry
ENV PATH=/opt/gateway/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    GATEWAY_CONFIG=/etc/gateway/gateway.yaml \
    GATEWAY_DATA_DIR=/var/lib/gateway \
    GATEWAY_HOST=0.0.0.0 \
    GATEWAY_PORT=8080
USER 10001:10001
WORKDIR /etc/gateway
VOLUME /var/lib/gateway
EXPOSE 8080
STOPSIGNAL SIGTERM
# What the replica itself says, not what answers at the public address. --start-period: the log is checked at a start.
HEALTHCHECK --interval=10s --timeout=4s --start-period=60s --retries=3 \
    CMD ["gateway", "healthcheck", "--url", "http://127.0.0.1:8080"]
# In exec form: the gateway is process 1, and takes SIGTERM (drain, flush, sign) and SIGHUP (reload) itself.
ENTRYPOINT ["gateway"]
CMD ["serve"]
