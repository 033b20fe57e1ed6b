#!/usr/bin/env bash
# setup.sh makes this machine ready for `make test` and `make demo`; `setup.sh
# bench`, for `make bench` too; `setup.sh soak`, for `make soak`.
#
# On Debian as root it installs what is missing; anywhere else, and without
# root, it changes nothing and says what is missing and how to get it. When
# nothing is missing it costs a second: no apt-get update, no build.
#
# The stand-ins for the front are built unless FRONT_IMAGE and FRONT_IMAGE_OLD
# both name other images.
set -euo pipefail

# A pinned tool is rebuilt when the version in .cache/bin is another one.
readonly PEBBLE='github.com/letsencrypt/pebble/v2 v2.10.1'
readonly STEP_CA='github.com/smallstep/certificates v0.30.2' # for make soak and bench: it takes minutes to build
readonly LEGO5='github.com/go-acme/lego/v5 v5.6.0'
readonly STATICCHECK='honnef.co/go/tools v0.8.2' # 2026.2.2, built for go 1.26
readonly DEADCODE='golang.org/x/tools v0.51.0'

readonly purpose=${1:-}

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
repo=$PWD
bin=$repo/.cache/bin

say() { printf 'setup: %s\n' "$*"; }
die() {
	printf 'setup: error: %s\n' "$1" >&2
	shift
	for line; do printf 'setup: hint: %s\n' "$line" >&2; done
	exit 1
}
PATH+=:/usr/sbin # where Debian keeps knotd and unbound
have() { command -v "$1" >/dev/null 2>&1; }

needs_stand_in() { [[ -z ${FRONT_IMAGE:-} || -z ${FRONT_IMAGE_OLD:-} ]]; }

# engine_answers is bounded, because a hung engine would hold the docker
# command forever.
engine_answers() { have docker && timeout 20 docker info >/dev/null 2>&1; }

# missing_packages prints the Debian packages whose files are not here.
missing_packages() {
	local command
	while read -r command package; do
		have "$command" || printf '%s\n' "$package"
	done <<-'LIST'
		certbot certbot
		lego lego
		dehydrated dehydrated
		docker-compose docker-compose
		openssl openssl
		gnutls-cli gnutls-bin
		tstclnt libnss3-tools
		strace strace
		fuser psmisc
		curl curl
		systemd-analyze systemd
		setpriv util-linux
		bindfs bindfs
		rsync rsync
		knotd knot
		kdig knot-dnsutils
		unbound unbound
		mkfs.exfat exfatprogs
		mount.exfat-fuse exfat-fuse
		losetup mount
		podman podman
		runc runc
		slirp4netns slirp4netns
		newuidmap uidmap
		rootlesskit rootlesskit
		haproxy haproxy
	LIST
	[[ -x /usr/lib/podman/netavark ]] || echo netavark # what podman's networks are made by
	! needs_stand_in || have mmdebstrap || echo mmdebstrap
	[[ -s /etc/ssl/certs/ca-certificates.crt ]] || echo ca-certificates
	[[ $purpose != bench || -x /usr/bin/time ]] || echo time # bash has one of its own
	[[ $purpose != soak ]] || have lintian || echo lintian
	# go test -race links through cgo: a compiler and the C headers.
	local cc
	read -r cc _ < <(go env CC)
	have "$cc" || echo gcc
	[[ -e /usr/include/stdlib.h ]] || echo libc6-dev
	# Without an engine that answers, and without one that could be started.
	engine_answers || { have docker && have dockerd; } || [[ -n ${DOCKER_HOST:-} ]] || echo docker.io
}

may_install() { [[ $EUID -eq 0 && -e /etc/debian_version ]] && have apt-get; }

install_packages() {
	local missing
	mapfile -t missing < <(missing_packages)
	((${#missing[@]})) || return 0
	may_install || die "missing: ${missing[*]} (names of Debian packages)" \
		"on Debian: sudo apt-get install ${missing[*]}" \
		'elsewhere: install the same programs, then run make again'
	say "installing ${missing[*]}"
	local log=$repo/.cache/apt.log
	if ! apt_install "${missing[@]}" >"$log" 2>&1; then
		tail -n 20 "$log" >&2
		die "apt-get could not install ${missing[*]}" "the whole log is $log"
	fi
}

apt_install() {
	apt-get update || return
	# From Debian 13 on the docker command is a package of its own.
	if [[ " $* " == *' docker.io '* ]] && apt-cache show docker-cli >/dev/null 2>&1; then
		set -- "$@" docker-cli
	fi
	without_services env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"
}

# without_services runs a command that installs packages, and keeps knot, unbound,
# haproxy and podman from being started by theirs, now (invoke-rc.d takes an answer of 101
# for a no) and at the next boot: the tests run servers of their own, and port 53
# and the resolver of this machine are none of their business.
without_services() {
	local policy=/usr/sbin/policy-rc.d status=0 service made=
	if [[ ! -e $policy ]]; then
		printf '#!/bin/sh\ncase $1 in knot*|unbound*|podman*|haproxy*) exit 101;; esac\n' >$policy
		chmod +x $policy
		made=$policy
	fi
	"$@" || status=$?
	for service in knot unbound haproxy podman.socket podman.service podman-restart.service podman-auto-update.timer; do
		[[ " $* " != *" ${service%%[.-]*} "* ]] || systemctl disable -q $service 2>/dev/null || true
	done
	[[ -z $made ]] || rm -f "$made"
	return $status
}

start_engine() {
	engine_answers && return 0
	[[ -z ${DOCKER_HOST:-} ]] || die "the Docker engine at DOCKER_HOST=$DOCKER_HOST does not answer" \
		'start it, or unset DOCKER_HOST'
	[[ $EUID -eq 0 ]] || die 'the Docker engine does not answer' \
		'start it, or let this user use it: sudo usermod -aG docker "$USER", then log in again'
	have dockerd || die 'no Docker engine on this machine' 'see https://docs.docker.com/engine/install/'
	local log=$repo/.cache/dockerd.log
	say 'starting the Docker engine'
	if [[ $(cat /proc/1/comm 2>/dev/null) == systemd ]]; then
		systemctl start docker || die 'systemd could not start docker' 'see: journalctl -u docker'
		log='journalctl -u docker'
	else
		setsid nohup dockerd </dev/null >"$log" 2>&1 &
	fi
	wait_for_engine "$log"
}

# add_rootless adds the ordinary user whose engines the tests start (useradd also gives
# it the ids that its containers use), and lets users make network devices and file
# systems in namespaces of theirs, as udev does where it runs.
add_rootless() {
	local user=mailu-hook-rootless
	if ! id -u "$user" >/dev/null 2>&1; then
		[[ $EUID -eq 0 ]] || die "missing: the user $user" "add it: sudo useradd --create-home --shell /usr/sbin/nologin $user"
		useradd --create-home --shell /usr/sbin/nologin "$user"
	fi
	local device
	for device in /dev/net/tun /dev/fuse; do
		[[ $EUID -ne 0 || ! -e $device ]] || chmod 0666 $device
	done
}

# wait_for_engine polls for up to a minute; engines that also set up their
# storage for the first time have been seen to take ten seconds.
wait_for_engine() {
	local deadline=$((SECONDS + 60))
	until engine_answers; do
		((SECONDS < deadline)) || die 'the Docker engine was started but does not answer' "see: $1"
		sleep 0.2
	done
}

# install_tool MODULE VERSION PACKAGE installs one pinned Go program. The
# version is read from the program itself, so that a changed pin takes effect.
install_tool() {
	local name=${3##*/} at
	at=$(go version -m "$bin/$name" 2>/dev/null | awk '$1 == "mod" { print $2, $3 }') || true
	[[ $at != "$1 $2" ]] || return 0
	say "building $name $2"
	GOBIN=$bin GOFLAGS= CGO_ENABLED=0 go install "$3@$2" ||
		die "building $3@$2 failed" 'the Go module proxy must be reachable once: see go env GOPROXY'
}

# install_pebble installs Pebble with one sign put right: told never to reuse an
# authorization (PEBBLE_AUTHZREUSE=0), it does so once in a hundred orders, because
# wfe.go compares rand.Intn(100) > 0.
install_pebble() {
	local module=${PEBBLE% *} version=${PEBBLE#* } copy=$repo/.cache/pebble source
	[[ ! -x $bin/pebble || ! -e $copy/$version ]] || return 0
	say "building pebble $version"
	rm -rf "$copy"
	source=$(go mod download -json "$module@$version" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
	cp -r --no-preserve=mode "$source" "$copy"
	sed -i 's/rand.Intn(100) > wfe.authzReusePercent/rand.Intn(100) >= wfe.authzReusePercent/' "$copy/wfe/wfe.go"
	! cmp -s "$source/wfe/wfe.go" "$copy/wfe/wfe.go" || die "$source/wfe/wfe.go does not compare as it did" 'see install_pebble in internal/rig/setup.sh'
	(cd "$copy" && GOFLAGS=-mod=mod CGO_ENABLED=0 go build -o "$bin/pebble" ./cmd/pebble) ||
		die "pebble $version could not be built" 'the Go module proxy must be reachable once: see go env GOPROXY'
	: >"$copy/$version"
}

# install_lego5 installs lego 5 without its DNS providers, which take minutes to build,
# and with the log of the standard library: the module proxy lacks what writes it in
# color. Its hooks are what they are.
install_lego5() {
	local module=${LEGO5% *} version=${LEGO5#* } copy=$repo/.cache/lego5 source
	[[ ! -x $bin/lego5 || ! -e $copy/$version ]] || return 0
	say "building lego $version"
	rm -rf "$copy"
	source=$(go mod download -json "$module@$version" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
	cp -r --no-preserve=mode "$source" "$copy"
	sed -i -e '/greyxor\/slogor"/d' -e '/go-isatty"/d' \
		-e '/opts := \[\]slogor/,/slogor.NewHandler/c\logger = slog.New(slog.NewTextHandler(os.Stdout, nil))' "$copy/cmd/logger.go"
	(cd "$copy" && GOFLAGS=-mod=mod CGO_ENABLED=0 go build -tags lego_dnslight -ldflags '-s -w' -o "$bin/lego5" .) ||
		die "lego $version could not be built" 'see install_lego5 in internal/rig/setup.sh'
	: >"$copy/$version"
}

# build_lego builds lego's own command, in the version that mailu-hook links, to
# be measured against. In a module of its own, as go install finds no v4 without
# a list of versions. It links every DNS provider, which takes minutes once.
build_lego() {
	local module=github.com/go-acme/lego/v4 version at
	version=$(go list -m -f '{{.Version}}' $module)
	at=$(go version -m "$bin/lego" 2>/dev/null | awk -v m=$module '$2 == m { print $3 }') || true
	[[ $at != "$version" ]] || return 0
	say "building lego $version, which takes some minutes"
	mkdir -p "$repo/.cache/lego"
	printf 'module lego-command\n\ngo 1.26\n\nrequire %s %s\n' $module "$version" >"$repo/.cache/lego/go.mod"
	(
		cd "$repo/.cache/lego"
		GOFLAGS=-mod=mod CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=${version#v}" -o "$bin/lego" $module/cmd/lego
	) >"$repo/.cache/lego.log" 2>&1 || {
		tail -n 20 "$repo/.cache/lego.log" >&2
		die 'lego could not be built' 'the Go module proxy must be reachable once: see go env GOPROXY'
	}
}

# unpack_tool PROGRAM PACKAGE takes one program out of a Debian package. Installed,
# these packages would bring services that start at once, and a web interface.
unpack_tool() {
	! have "$1" && [[ ! -x $bin/$1 ]] || return 0
	[[ -e /etc/debian_version ]] && have apt-get || die "missing: $1" "install what Debian has in its package $2"
	say "unpacking $1 from Debian's $2"
	local scratch log=$repo/.cache/apt.log
	scratch=$(mktemp -d)
	chmod 755 "$scratch" # apt-get downloads as a user of its own
	(
		cd "$scratch"
		apt-get download "$2" || { apt-get update && apt-get download "$2"; }
		dpkg-deb -x ./*.deb .
	) >"$log" 2>&1 && install -D "$scratch/usr/bin/$1" "$bin/$1" || {
		rm -rf "$scratch"
		tail -n 20 "$log" >&2
		die "apt-get could not download $2" "the whole log is $log"
	}
	rm -rf "$scratch"
}

mkdir -p "$bin"
have go || die 'go is not in PATH' 'see https://go.dev/dl/; mailu-hook needs 1.26 or newer'
install_packages
add_rootless
start_engine
unpack_tool promtool prometheus
unpack_tool prometheus-node-exporter prometheus-node-exporter
unpack_tool caddy caddy
# shellcheck disable=SC2086 # a pin is two words
{
	install_pebble
	install_lego5
	install_tool $PEBBLE github.com/letsencrypt/pebble/v2/cmd/pebble-challtestsrv
	install_tool $STATICCHECK honnef.co/go/tools/cmd/staticcheck
	install_tool $DEADCODE golang.org/x/tools/cmd/deadcode
}
[[ $purpose != bench ]] || build_lego
# shellcheck disable=SC2086
[[ $purpose != soak && $purpose != bench ]] || install_tool $STEP_CA github.com/smallstep/certificates/cmd/step-ca
if [[ -z ${FRONT_IMAGE:-} ]]; then
	docker image inspect mailu-hook-front:2024.06 >/dev/null 2>&1 || say 'building the stand-in front'
	internal/rig/front/build.sh >/dev/null
fi
docker image inspect mailu-hook-certbot >/dev/null 2>&1 || say 'building an image with certbot'
internal/rig/certbot/build.sh >/dev/null
