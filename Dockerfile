# The controller as one static binary, on an image of little more than CA certificates.

# Alpine's C library is musl, so that what is built here is static without a cross compiler. The
# version is that of rust-toolchain.toml, which is left outside: it would have rustup load the
# components that only a developer needs. The image brings gcc, which ring is compiled with.
FROM rust:1.95.0-alpine AS build
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY src src
# Without the default feature `demo`: the simulator and the local control plane stay outside.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --no-default-features --bin tsdp \
    && cp target/release/tsdp /tsdp

FROM gcr.io/distroless/static-debian12:nonroot
COPY --from=build /tsdp /tsdp
# By number, so that Kubernetes can tell that it is not root.
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["/tsdp"]
CMD ["controller"]
