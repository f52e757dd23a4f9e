# The container image, from what `make image` lays out in bin/image: the static program, its licenses, and certificate
# authorities (deploy/image says more). No base image and no network, and one commit makes one digest.
FROM scratch
ARG VERSION=dev
ARG REVISION=unknown
LABEL org.opencontainers.image.title="token-projector" \
      org.opencontainers.image.description="Keeps the projected ServiceAccount tokens of a node's pods fresh on disk" \
      org.opencontainers.image.source="https://github.com/token-projector/token-projector" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY . /
# As in deploy: root, with few capabilities.
USER 0
ENTRYPOINT ["/token-projector"]
CMD ["run"]
