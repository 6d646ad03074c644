# The image of scripts/image, for those who have Docker or podman and no Rust:
#
#   docker build -t localhost/nodeplug:0.1.0 .
#   docker buildx build --platform linux/amd64,linux/arm64 -t REGISTRY/nodeplug:0.1.0 --push .
#
# For another processor the compiler runs on this one and makes programs for that one: nothing is emulated.
ARG RUST_VERSION=1.91

FROM --platform=$BUILDPLATFORM rust:${RUST_VERSION}-bookworm AS build
# Docker's own: the processor that the image is for, by its Go name. Without a default, which BuildKit would take for
# what it was asked for; an older builder says nothing, and means this processor.
ARG TARGETARCH
WORKDIR /src
# gcc links, and the C library is linked in.
RUN set -eu; \
    here=$(dpkg --print-architecture); \
    arch=${TARGETARCH:-$here}; \
    case "$arch" in \
      amd64) triple=x86_64-unknown-linux-gnu gcc=x86-64-linux-gnu machine=X86-64 ;; \
      arm64) triple=aarch64-unknown-linux-gnu gcc=aarch64-linux-gnu machine=AArch64 ;; \
      *) echo "no image for $arch: add its triple, gcc and machine here" >&2; exit 1 ;; \
    esac; \
    if [ "$here" = "$arch" ]; then packages="gcc libc6-dev"; \
    else packages="gcc-$gcc libc6-dev-$arch-cross"; fi; \
    apt-get update; \
    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $packages; \
    rm -rf /var/lib/apt/lists/*; \
    rustup target add "$triple"; \
    echo "$triple" > /triple; \
    echo "$machine" > /machine
COPY . .
RUN set -eu; \
    triple=$(cat /triple); \
    machine=$(cat /machine); \
    export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_LINKER=x86_64-linux-gnu-gcc; \
    export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc; \
    cargo build --locked --release --target "$triple" \
      -p nodeplug-cni -p nodeplug-flexvolume -p nodeplug-device-plugin; \
    mkdir /out; \
    for program in nodeplug-cni nodeplug-flexvolume nodeplug-device-plugin; do \
      if readelf -lW "target/$triple/release/$program" | grep -q INTERP; then \
        echo "$program is not static" >&2; exit 1; \
      fi; \
      if ! readelf -h "target/$triple/release/$program" | grep -q "Machine:.*$machine"; then \
        echo "$program is not for $machine" >&2; exit 1; \
      fi; \
      install -m 755 "target/$triple/release/$program" /out/; \
    done

FROM scratch
ARG REVISION=unknown
LABEL org.opencontainers.image.title="nodeplug" \
      org.opencontainers.image.description="Networks, volumes and devices for the pods of a Kubernetes node" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.revision="$REVISION"
COPY --from=build /out/nodeplug-cni /nodeplug-cni
COPY --from=build /out/nodeplug-flexvolume /nodeplug-flexvolume
COPY --from=build /out/nodeplug-device-plugin /nodeplug-device-plugin
USER 0:0
WORKDIR /
CMD ["/nodeplug-cni", "--help"]
