#!/bin/sh
# Installs GNU Smalltalk 3.2.5 and libzmq, which the Smalltalk tests run on.
#
# Debian dropped gnu-smalltalk after bullseye; its package still installs beside a newer release. So bullseye
# becomes a second source, pinned so low that nothing else ever comes from it.
#
# Exit status: 0 installed (or there already), 1 an installation failed, 3 this machine cannot have it.
set -eu

cannot() {
    echo "GNU Smalltalk was not installed: $1" >&2
    echo "Install gst (GNU Smalltalk 3.2) and libzmq.so.5 by hand; make test skips the Smalltalk tests until then." >&2
    exit 3
}

if command -v gst >/dev/null 2>&1 && ldconfig -p 2>/dev/null | grep -q 'libzmq\.so\.5'; then
    exit 0
fi
[ -r /etc/debian_version ] && command -v apt-get >/dev/null 2>&1 || cannot "this is no Debian."
[ "$(id -u)" = 0 ] || cannot "it needs root (sudo sh pharo/gst/install.sh)."
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
[ -r "$keyring" ] || cannot "there is no $keyring to check the packages with (apt-get install debian-archive-keyring)."

# The mirror that this machine uses already, unless another is named.
used=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null | grep -v '^#' |
    grep -oE '[a-z+]+:/[^ ]*/debian/?( |$)' | head -n 1 | tr -d ' ')
mirror=${DEBIAN_MIRROR:-$used}
[ -n "$mirror" ] || cannot "no Debian mirror is set up (name one in DEBIAN_MIRROR)."
cat > /etc/apt/sources.list.d/neuroscope-bullseye.sources <<EOF
Types: deb
URIs: $mirror
Suites: bullseye
Components: main
Signed-By: $keyring
EOF
cat > /etc/apt/preferences.d/neuroscope-bullseye <<EOF
Package: *
Pin: release n=bullseye
Pin-Priority: 50
EOF

export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends libzmq5 gnu-smalltalk gnu-smalltalk-common
gst --version | head -n 1
