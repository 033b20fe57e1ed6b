#!/bin/sh
# Builds mailu-hook-front:2024.06 and mailu-hook-front:2.0, stand-ins for the
# front container of Mailu 2024.06 and later, and of Mailu 2.0.
#
# The base is debian:bookworm-slim if Docker can pull it, else it is made by
# mmdebstrap on a Debian host, as root. Nothing is built twice: the images carry
# a hash of what they were built from, and the base is kept in .cache/front.
set -eu

packages='ca-certificates curl dovecot-imapd dovecot-managesieved dovecot-pop3d
dovecot-submissiond libnginx-mod-mail nginx-light procps psmisc'

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../../.." && pwd)
cache=$root/.cache/front
name=mailu-hook-front

die() {
	echo "build.sh: $*" >&2
	exit 1
}

need() {
	command -v "$1" >/dev/null 2>&1 || die "$1 is missing: $2"
}

digest() {
	sha256sum | cut -c 1-16
}

# Pulling needs a registry, and the apt-get in it a network inside containers.
base_by_pull() {
	timeout 60 docker pull -q debian:bookworm-slim >/dev/null 2>&1 || return 1
	printf 'FROM debian:bookworm-slim\nRUN apt-get update && apt-get install -y --no-install-recommends %s && rm -rf /var/lib/apt/lists/*\n' \
		"$(echo $packages)" | timeout 600 docker build -q -t "$1" - >/dev/null 2>&1
}

base_by_mmdebstrap() {
	tarball=$cache/$(echo "$1" | tr : -).tar
	if [ ! -s "$tarball" ]; then
		hint='debian:bookworm-slim cannot be pulled, and building a base without it needs'
		[ -e /etc/debian_version ] || die "$hint Debian; this is not Debian"
		[ "$(id -u)" = 0 ] || die "$hint root; this is uid $(id -u)"
		command -v mmdebstrap >/dev/null 2>&1 || die "$hint mmdebstrap: apt install mmdebstrap"
		mkdir -p "$cache"
		mmdebstrap --quiet --format=tar --variant=minbase --include="$(echo $packages | tr ' ' ,)" \
			--dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
			--dpkgopt='path-exclude=/usr/share/man/*' bookworm "$tarball.part" ||
			die 'mmdebstrap failed: are the Debian mirrors reachable?'
		mv "$tarball.part" "$tarball"
	fi
	docker import "$tarball" "$1" >/dev/null
}

present() {
	docker image inspect "$1" >/dev/null 2>&1
}

need sha256sum 'install coreutils'
need docker 'install Docker (Debian: apt install docker.io)'
docker version >/dev/null 2>&1 || die 'the Docker engine does not answer: is it running, and may you use it?'

base=$name-base:$(echo "$packages" | digest)
inputs=$({ echo "$base"; cd "$here"; cat Dockerfile $(ls ./*.go | grep -v _test) conf/*; } | digest)

stale=
for variant in 2024.06 2.0; do
	have=$(docker image inspect -f '{{index .Config.Labels "mailu-hook.front.inputs"}}' "$name:$variant" 2>/dev/null || true)
	[ "$have" = "$inputs" ] || stale="$stale $variant"
done
if [ -n "$stale" ]; then
	need go 'install Go, see https://go.dev/doc/install'
	present "$base" || base_by_pull "$base" || base_by_mmdebstrap "$base"

	scratch=$(mktemp -d)
	trap 'rm -rf "$scratch"' EXIT
	trap 'exit 1' HUP INT TERM
	context=$scratch/context
	mkdir "$context"
	(cd "$root" && CGO_ENABLED=0 GOOS=linux GOARCH=$(docker version -f '{{.Server.Arch}}') \
		go build -trimpath -buildvcs=false -ldflags='-s -w' -o "$context/front" ./internal/rig/front)
	cp "$here/Dockerfile" "$context"
	for variant in $stale; do
		docker build -q -t "$name:$variant" --build-arg "BASE=$base" --build-arg "VARIANT=$variant" \
			--build-arg "INPUTS=$inputs" "$context" >"$scratch/log" 2>&1 || {
			cat "$scratch/log" >&2
			die "docker build of $name:$variant failed"
		}
	done
fi
for variant in 2024.06 2.0; do
	echo "$name:$variant"
done
