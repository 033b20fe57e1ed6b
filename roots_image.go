//go:build image

package main

// An image FROM scratch has no CA certificates: Mozilla's, as of the build, stand in
// where it is given none.
import _ "golang.org/x/crypto/x509roots/fallback"
