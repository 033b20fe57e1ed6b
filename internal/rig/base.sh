#!/bin/sh
# base.sh NAME PACKAGE... makes the image NAME: Debian 12 with these packages.
#
# It is debian:bookworm-slim if Docker can pull that, else made by mmdebstrap on a
# Debian host, as root, and kept in .cache/base.
set -eu

name=$1
shift
root=$(cd "$(dirname "$0")/../.." && pwd)
tarball=$root/.cache/base/$(echo "$name" | tr : -).tar

die() {
	echo "base.sh: $*" >&2
	exit 1
}

# Pulling needs a registry, and the apt-get in it a network inside containers.
by_pull() {
	timeout 60 docker pull -q debian:bookworm-slim >/dev/null 2>&1 || return 1
	printf 'FROM debian:bookworm-slim\nRUN apt-get update && apt-get install -y --no-install-recommends %s && rm -rf /var/lib/apt/lists/*\n' \
		"$*" | timeout 600 docker build -q -t "$name" - >/dev/null 2>&1
}

by_mmdebstrap() {
	if [ ! -s "$tarball" ]; then
		hint='debian:bookworm-slim cannot be pulled, and building a base without it needs'
		[ -e /etc/debian_version ] || die "$hint Debian; this is not Debian"
		[ "$(id -u)" = 0 ] || die "$hint root; this is uid $(id -u)"
		command -v mmdebstrap >/dev/null 2>&1 || die "$hint mmdebstrap: apt install mmdebstrap"
		mkdir -p "$(dirname "$tarball")"
		mmdebstrap --quiet --format=tar --variant=minbase --include="$(echo "$*" | tr ' ' ,)" \
			--dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
			--dpkgopt='path-exclude=/usr/share/man/*' bookworm "$tarball.part" ||
			die 'mmdebstrap failed: are the Debian mirrors reachable?'
		mv "$tarball.part" "$tarball"
	fi
	docker import "$tarball" "$name" >/dev/null
}

docker image inspect "$name" >/dev/null 2>&1 || by_pull "$@" || by_mmdebstrap "$@"
