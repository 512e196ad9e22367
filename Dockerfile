# syntax=docker/dockerfile:1
# Pages, then the binary without the demo dealer, then an image with nothing else in it.

FROM node:20-bookworm-slim AS web
WORKDIR /web
COPY web/package.json web/package-lock.json ./
RUN npm ci --no-audit --no-fund
COPY web/ ./
RUN npm run build

FROM rust:1.95-bookworm AS build
# Its C compiler is all that aws-lc, built from its sources, asks for.
WORKDIR /src
COPY . .
COPY --from=web /web/dist web/dist
RUN cargo build --release --locked --package railbird --no-default-features

# glibc and libgcc only; no shell. Runs with a read-only root: nothing is written.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /src/target/release/railbird /usr/local/bin/railbird
COPY configs/railbird.toml /etc/railbird/railbird.toml
# A numeric user lets Kubernetes verify runAsNonRoot.
USER 65532:65532
# Loopback would be the container's own: nobody outside could probe or scrape it.
ENV RAILBIRD__ADMIN__LISTEN=0.0.0.0:9090
EXPOSE 8080/tcp 8443/udp 9090/tcp
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/railbird"]
CMD ["serve", "--config", "/etc/railbird/railbird.toml"]
