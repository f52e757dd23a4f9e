# The image holds one static binary and the license. Build it with:
#
#	docker build --build-arg VERSION=v0.1.0 -t token-projector:v0.1.0 .
FROM --platform=$BUILDPLATFORM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum LICENSE ./
COPY cmd ./cmd
COPY projector ./projector
COPY rotation ./rotation
COPY atomicwriter ./atomicwriter
COPY metrics ./metrics
ARG TARGETOS TARGETARCH
ARG VERSION=dev
ARG OUTPUT=/out/token-projector
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH \
    go build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=$VERSION" -o "$OUTPUT" ./cmd/token-projector

FROM scratch
COPY --from=build /src/LICENSE /LICENSE
COPY --from=build /out/token-projector /token-projector
ENTRYPOINT ["/token-projector"]
CMD ["run"]
