# syntax=docker/dockerfile:1
# The controller as one static binary, on an image of little more than CA certificates. For both architectures:
#   docker buildx build --platform linux/amd64,linux/arm64 .

# The version is that of rust-toolchain.toml, which is left outside: it would have rustup load the components that only a
# developer needs. Debian's glibc, as in the tests; the image brings gcc, which ring is compiled with. The build runs on
# the architecture of the machine and compiles for that of the image: emulated, it would take hours.
FROM --platform=$BUILDPLATFORM rust:1.95.0-slim-bookworm AS build
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
ARG BUILDARCH
ARG TARGETARCH
WORKDIR /src
# hadolint ignore=DL3008
RUN if [ "$BUILDARCH" != "$TARGETARCH" ]; then \
        case $TARGETARCH in amd64) gcc=x86-64 ;; *) gcc=aarch64 ;; esac; \
        apt-get update; \
        apt-get install --yes --no-install-recommends "gcc-$gcc-linux-gnu" "libc6-dev-$TARGETARCH-cross"; \
        rm -rf /var/lib/apt/lists/*; \
    fi; \
    case $TARGETARCH in amd64) machine=x86_64 ;; *) machine=aarch64 ;; esac; \
    echo "$machine-unknown-linux-gnu" >/target; \
    rustup target add "$(cat /target)"

# The dependencies in a layer of their own, which stays until one of them changes.
COPY Cargo.toml Cargo.lock ./
COPY .ci/build .ci/build
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    mkdir src; \
    touch src/lib.rs; \
    echo 'fn main() {}' >src/main.rs; \
    .ci/build "$(cat /target)"

COPY src src
# For tsdp_build_info.
ARG REVISION=unknown
# Cargo compares times, and those of the copied files can be older than the layer.
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    touch src/lib.rs src/main.rs; \
    TSDP_REVISION="$REVISION" .ci/build "$(cat /target)"; \
    mkdir /image; \
    cp "target/$(cat /target)/release/tsdp" /image/tsdp; \
    ln -s tsdp /image/kubectl-tsdp

FROM gcr.io/distroless/static-debian12:nonroot
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="tsdp" \
      org.opencontainers.image.description="A Kubernetes controller that keeps the settings of Tailscale devices as declared in YAML" \
      org.opencontainers.image.source="https://github.com/tailnet-dev/tsdp" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"
COPY --from=build /image/ /
# By number, so that Kubernetes can tell that it is not root.
USER 65532:65532
EXPOSE 8080
# For glibc: one arena, and what a large list or a rollout has used goes back to the kernel (docs/performance.md).
ENV MALLOC_ARENA_MAX=1 MALLOC_MMAP_THRESHOLD_=131072 MALLOC_TRIM_THRESHOLD_=131072
ENTRYPOINT ["/tsdp"]
CMD ["controller"]
