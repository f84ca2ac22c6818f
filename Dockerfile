# syntax=docker/dockerfile:1
# The image of Guenon: one static binary. `cargo xtask image` makes the same last stage without a container engine.
FROM rust:1.95-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends musl-tools && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
ARG TARGETARCH
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/root/.cache/guenon \
    --mount=type=cache,target=/src/target,id=target-$TARGETARCH \
    case "$TARGETARCH" in \
        amd64) target=x86_64-unknown-linux-musl ;; \
        arm64) target=aarch64-unknown-linux-musl ;; \
        *) echo "no image for $TARGETARCH" >&2; exit 1 ;; \
    esac \
    && rustup target add "$target" && rustup component add rust-src rustfmt clippy \
    && cargo xtask setup --build \
    && CC_x86_64_unknown_linux_musl=musl-gcc CC_aarch64_unknown_linux_musl=musl-gcc CARGO_PROFILE_RELEASE_STRIP=symbols \
       cargo build --release --package guenon-controller --bin guenon --target "$target" \
    && cp "target/$target/release/guenon" /guenon

FROM scratch
LABEL org.opencontainers.image.title="guenon" \
      org.opencontainers.image.description="L4 load balancer that can say where your packet went" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /guenon /guenon
ENTRYPOINT ["/guenon"]
