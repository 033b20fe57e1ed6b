#!/usr/bin/env bash
# dist.sh VERSION builds dist/: for Linux, the program for each architecture, packages
# and container images for two, the manual page, completions, the licenses of all that
# is linked in, what it is made of (CycloneDX), and the checksums of these.
#
# The same commit and Go give the same files, whoever builds them, wherever they lie:
# the only time in them is that of the commit. PACKAGER is who answers for packages.
set -euo pipefail

readonly version=$1
readonly packager=${PACKAGER:-mailu-hook maintainers <maintainers@example.org>}
readonly NFPM='github.com/goreleaser/nfpm/v2 v2.45.0'
readonly SBOM='github.com/CycloneDX/cyclonedx-gomod v1.9.0'

cd "$(dirname "${BASH_SOURCE[0]}")/.."
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH TZ=UTC LC_ALL=C
umask 022
readonly bin=$PWD/.cache/bin

# tool "MODULE VERSION" PACKAGE makes that version of a Go program the one in .cache/bin.
tool() {
	local at
	at=$(go version -m "$bin/${2##*/}" 2>/dev/null | awk '$1 == "mod" { print $2, $3 }') || true
	[[ $at == "$1" ]] || GOBIN=$bin GOFLAGS='' CGO_ENABLED=0 go install -trimpath "$2@${1#* }"
}

# build OUTPUT [FLAG...] builds the program for the architecture in the environment.
build() {
	CGO_ENABLED=0 GOOS=linux go build -trimpath -buildvcs=false -ldflags "-s -w -X mailu-hook/internal/cli.release=$version" -o "$@" .
}

binaries() {
	local arch
	for arch in amd64 arm64 arm 386 riscv64 s390x; do
		GOARCH=$arch GOARM=7 build "dist/mailu-hook-linux-${arch/%arm/armv7}"
	done
}

texts() {
	local program shell
	program=$(mktemp)
	GOARCH=$(go env GOHOSTARCH) build "$program"
	"$program" help --man >dist/mailu-hook.8
	for shell in bash zsh fish; do "$program" completion $shell >dist/mailu-hook.$shell; done
	rm "$program"
}

# licenses prints the licenses of this program, of Go, and of each module that is linked
# into a binary for any architecture or into an image; a module without one is an error.
licenses() {
	local module texts file image=.cache/dist-image/mailu-hook
	build $image -tags image
	printf '== mailu-hook\n\n' && cat LICENSE
	printf '\n== Go\n\n' && cat "$(go env GOROOT)/LICENSE"
	go version -m dist/mailu-hook-linux-* $image | awk '$1 == "dep" { print $2 }' | sort -u | while read -r module; do
		printf '\n== %s\n' "$(go list -m "$module")"
		texts=$(find "$(go list -m -f '{{.Dir}}' "$module")" -maxdepth 1 -type f -iregex '.*/\(licen[cs]e\|copying\|notice\|patents\)[^/]*' | sort)
		[[ -n $texts ]] || { echo "dist.sh: $module: no license found" >&2 && return 1; }
		while read -r file; do echo && cat "$file"; done <<<"$texts"
	done
}

# materials lists the modules that are linked in.
materials() {
	"$bin/cyclonedx-gomod" bin -json -noserial -version "$version" -output dist/sbom.cdx.json dist/mailu-hook-linux-amd64
	sed -i "s/\"timestamp\": \"[^\"]*\"/\"timestamp\": \"$(date -d "@$SOURCE_DATE_EPOCH" +%FT%TZ)\"/" dist/sbom.cdx.json
}

# packages builds deb, rpm and apk, from files that say /usr/bin.
packages() {
	local stage=.cache/dist arch kind file release=${version#v}
	[[ $release =~ ^[0-9]+\.[0-9]+\.[0-9]+$ ]] || release=0.0.0-git$(date -d "@$SOURCE_DATE_EPOCH" +%Y%m%d%H%M%S)
	rm -rf $stage && mkdir -p $stage
	cp -r examples packaging/{copyright,lintian-overrides,post*,pre*} dist/mailu-hook.* README.md CHANGELOG.md SECURITY.md LICENSE docs $stage/
	grep -rlZ --exclude=install.md /usr/local/bin/mailu $stage | xargs -0 sed -i 's|/usr/local/bin/mailu|/usr/bin/mailu|g'
	gzip -9n $stage/mailu-hook.8 $stage/CHANGELOG.md
	cat >$stage/changelog.yaml <<-END
		- semver: $release
		  date: $(date -d "@$SOURCE_DATE_EPOCH" +%FT%TZ)
		  packager: $packager
		  deb: {urgency: medium, distributions: [stable]}
		  changes: [{note: "See changelog.gz for what changed."}]
	END
	for arch in amd64 arm64; do
		cp dist/mailu-hook-linux-$arch $stage/mailu-hook
		find $stage -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
		for kind in deb rpm apk; do
			(cd $stage && ARCH=$arch VERSION=$release PACKAGER=$packager \
				"$bin/nfpm" package --config "$OLDPWD/packaging/nfpm.yaml" --packager $kind --target "$OLDPWD/dist/")
		done
	done
	rm -rf $stage
}

# images builds the container image for each architecture as an archive that podman,
# skopeo and docker (from 25 on) load.
images() {
	local arch dir=.cache/dist-image run
	run=$(mktemp -d) # podman wants it shorter than 50 characters
	local podman=(podman --root "$PWD/$dir/root" --runroot "$run" --storage-driver vfs)
	for arch in amd64 arm64; do
		rm -rf $dir && mkdir -p $dir/context
		GOARCH=$arch build $dir/context/mailu-hook -tags image
		"${podman[@]}" build --quiet --timestamp "$SOURCE_DATE_EPOCH" --platform linux/$arch --format oci \
			--label org.opencontainers.image.version="$version" --tag mailu-hook:"$version" \
			--file examples/compose/Dockerfile $dir/context >$dir/log 2>&1 || {
			cat $dir/log >&2
			echo "dist.sh: podman could not build the image for $arch" >&2
			return 1
		}
		# podman's own archives hold the time at which they were written.
		"${podman[@]}" save --quiet --format oci-dir --output $dir/image mailu-hook:"$version"
		tar --create --file dist/mailu-hook-image-$arch.tar --directory $dir/image --sort=name --format=gnu \
			--mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner blobs index.json oci-layout
		"${podman[@]}" rmi --all --force >/dev/null
	done
	rm -rf $dir "$run"
}

tool "$NFPM" github.com/goreleaser/nfpm/v2/cmd/nfpm
tool "$SBOM" github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod
rm -rf dist && mkdir dist
binaries
texts
licenses >dist/LICENSES
materials
packages
images
cd dist && sha256sum -- * >SHA256SUMS && cat SHA256SUMS
