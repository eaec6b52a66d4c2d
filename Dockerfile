# One worker: the binary, ONNX Runtime and the embedding model. The NATS server and the database are elsewhere.

FROM python:3.11-slim-bookworm AS assets
WORKDIR /tandem
COPY config/assets.toml config/assets.toml
COPY scripts/setup scripts/fused_model.py scripts/
RUN python3 scripts/setup

FROM rust:1.95-bookworm AS build
WORKDIR /tandem
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/tandem/target \
    cargo build --release --locked --bin tandem \
    && cp target/release/tandem /usr/local/bin/tandem

# The same Debian as the one it was built on, for its C library.
FROM debian:bookworm-slim
# ca-certificates: models are asked over TLS. libstdc++6: ONNX Runtime is C++.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates libstdc++6 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --create-home tandem
COPY --from=assets /tandem/.tandem/onnxruntime /usr/share/tandem/onnxruntime
COPY --from=assets /tandem/.tandem/embedding /usr/share/tandem/embedding
COPY --from=build /usr/local/bin/tandem /usr/local/bin/tandem
ENV TANDEM_ASSETS=/usr/share/tandem
USER tandem
WORKDIR /home/tandem
# Whether requests are answered where this worker is connected; any worker there may be the one that answers.
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 CMD ["tandem", "health", "--json"]
# As process 1 it gets SIGTERM itself, and drains.
ENTRYPOINT ["tandem"]
CMD ["serve"]
