#!/bin/sh
# What ./dev test docker needs, on a Debian, as root: an engine that runs, compose, and the base image. Does nothing
# twice. The engine goes on running; its log is in /var/log/dockerd.log.
set -eu
here=$(dirname "$0")
base=debian:trixie-slim

[ "$(id -u)" = 0 ] || { echo "error: run $0 as root, got uid $(id -u)" >&2; exit 1; }
export DEBIAN_FRONTEND=noninteractive

packages=
command -v dockerd >/dev/null && command -v docker >/dev/null || packages="docker.io"
command -v debootstrap >/dev/null || packages="$packages debootstrap"
if [ -n "$packages" ]; then
    apt-get update -q
    # shellcheck disable=SC2086  # one word a package; the recommended ones of docker.io include its network tools
    apt-get install -yq $packages
fi

if ! docker info >/dev/null 2>&1; then
    nohup dockerd >/var/log/dockerd.log 2>&1 &
    tries=0
    until docker info >/dev/null 2>&1; do
        tries=$((tries + 1))
        [ "$tries" -le 60 ] || { tail -n 20 /var/log/dockerd.log >&2; echo "error: dockerd does not start" >&2; exit 1; }
        sleep 0.5
    done
fi

if ! docker image inspect "$base" >/dev/null 2>&1; then
    timeout 60 docker pull -q "$base" 2>/dev/null || "$here/make_base.sh" "$base"
fi

# Debian has compose 2 since trixie; an older one takes the plugin out of that package.
if ! docker compose version >/dev/null 2>&1; then
    plugins=/usr/local/lib/docker/cli-plugins
    mkdir -p "$plugins"
    # shellcheck disable=SC2016  # expanded in the container
    docker run --rm --network host "$base" sh -c '
        cd /tmp && apt-get update -qq >&2 && apt-get download -qq docker-compose >&2 && dpkg-deb -x docker-compose_*.deb out &&
        cat out/usr/libexec/docker/cli-plugins/docker-compose' >"$plugins/docker-compose.new"
    chmod +x "$plugins/docker-compose.new"
    mv "$plugins/docker-compose.new" "$plugins/docker-compose"
fi
docker compose version
docker version --format 'client {{.Client.Version}}, engine {{.Server.Version}}'
