#!/bin/sh
# A stand-in for debian:trixie-slim where no registry can be reached: the same packages, from a Debian mirror.
#
#   make_base.sh [TAG]        debian:trixie-slim
#
# As root, with debootstrap and a Docker engine. What this machine needs to reach Debian and PyPI goes in too, so
# that a Dockerfile need not know of it: the mirror, apt's Acquire settings, the CA bundle, pip's configuration.
set -eu

tag=${1:-debian:trixie-slim}
suite=trixie
mirror=$({ grep -rhoE 'https?://[^] ]+/debian/?( |$)' /etc/apt/sources.list /etc/apt/sources.list.d 2>/dev/null || true; } |
    head -n 1 | tr -d ' ')

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root

# shellcheck disable=SC2086  # none: debootstrap knows one
debootstrap --variant=minbase "$suite" "$root" $mirror >"$work/log" 2>&1 || { tail -n 20 "$work/log" >&2; exit 1; }

# What the slim image leaves out, and keeps leaving out when packages are installed.
cat >"$root/etc/dpkg/dpkg.cfg.d/slim" <<'END'
path-exclude /usr/share/doc/*
path-include /usr/share/doc/*/copyright
path-exclude /usr/share/info/*
path-exclude /usr/share/locale/*
path-exclude /usr/share/man/*
END
find "$root/usr/share/doc" -type f ! -name copyright -delete
find "$root/usr/share/doc" -type d -empty -delete
rm -rf "$root/usr/share/info" "$root/usr/share/locale" "$root/usr/share/man"
rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/* "$root"/var/log/*.log "$root"/var/cache/apt/*.bin
cat >"$root/etc/apt/apt.conf.d/docker-clean" <<'END'
DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb /var/cache/apt/*.bin || true"; };
APT::Update::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb /var/cache/apt/*.bin || true"; };
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
Acquire::Languages "none";
Acquire::GzipIndexes "true";
END
printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d" && chmod +x "$root/usr/sbin/policy-rc.d"

# -- what this machine needs to reach the world
for file in /etc/apt/apt.conf.d/*; do
    if [ -f "$file" ] && grep -q '^Acquire::' "$file" && ! grep -qv -e '^Acquire::' -e '^//' -e '^$' "$file"; then
        cp "$file" "$root/etc/apt/apt.conf.d/"
    fi
done
bundle=/etc/ssl/certs/ca-certificates.crt
if [ -s "$bundle" ]; then
    # where update-ca-certificates finds it, should that package be installed later, and where it would put it
    mkdir -p "$root/etc/ssl/certs" "$root/usr/local/share/ca-certificates"
    cp "$bundle" "$root$bundle"
    find /usr/local/share/ca-certificates -name '*.crt' -exec cp {} "$root/usr/local/share/ca-certificates/" \; 2>/dev/null || true
    printf '[global]\ncert = %s\n' "$bundle" >"$root/etc/pip.conf"
else
    echo '[global]' >"$root/etc/pip.conf"
fi
for key in index-url extra-index-url proxy; do
    # folders of this machine are not in the image
    value=$(python3 -m pip config get "global.$key" 2>/dev/null | tr ' ' '\n' | grep -v '^file:' | tr '\n' ' ' || true)
    [ -z "${value% }" ] || echo "$key = ${value% }" >>"$root/etc/pip.conf"
done

tar -C "$root" --numeric-owner -c . |
    docker import --change 'CMD ["bash"]' --change 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' \
        --message "debootstrap $suite" - "$tag"
