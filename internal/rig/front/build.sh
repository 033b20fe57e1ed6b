#!/bin/sh
# Builds mailu-hook-front:2024.06 and mailu-hook-front:2.0, stand-ins for the
# front container of Mailu 2024.06 and later, and of Mailu 2.0.
#
# The base is made by ../base.sh. Nothing is built twice: the images carry a hash of
# what they were built from.
set -eu

packages='ca-certificates curl dovecot-imapd dovecot-managesieved dovecot-pop3d
dovecot-submissiond libnginx-mod-mail nginx-light procps psmisc'

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../../.." && pwd)
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
	"$here/../base.sh" "$base" $packages

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
