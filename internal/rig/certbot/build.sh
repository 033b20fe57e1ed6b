#!/bin/sh
# Builds mailu-hook-certbot, a stand-in for the image certbot/certbot: Debian's certbot
# as the entry point.
set -eu

name=mailu-hook-certbot
if ! docker image inspect $name >/dev/null 2>&1; then
	"$(dirname "$0")/../base.sh" $name-base certbot
	printf 'FROM %s-base\nENTRYPOINT ["certbot"]\n' $name | docker build -q -t $name - >/dev/null 2>&1 || {
		echo "build.sh: docker build of $name failed" >&2
		exit 1
	}
fi
echo $name
