#!/bin/bash
# The Debian packages that building, some tests and the yardstick of `make bench` need. Run as root: make deps
set -euo pipefail

packages=(
  python3-venv       # make venv
  python3-dev        # PyCUDA's own build (make gpu-deps)
  g++                # kernels on the CPU; PyCUDA's own build
  make               # the front of this tree
  git                # the house rules look at tracked files; bench names its commit
  openssl            # e2e: a TLS client we did not write, and its view of our certificates
  curl               # e2e: the metrics and the admin API from outside
  mosquitto-clients  # e2e: mosquitto_pub, mosquitto_sub and mosquitto_rr over mutual TLS
  mosquitto          # make bench: the yardstick in the same run (tests start it on a free port of its own)
)

if [ "$(id -u)" -ne 0 ]; then
  echo "error: make deps installs Debian packages: run it as root" >&2
  exit 1
fi
if ! command -v apt-get >/dev/null; then
  echo "error: no apt-get here: install the counterparts of these yourself: ${packages[*]}" >&2
  exit 1
fi

missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q '^install ok installed$' || missing+=("$package")
done
if [ "${#missing[@]}" -eq 0 ]; then
  echo "every Debian package is there: ${packages[*]}"
  exit 0
fi

echo "installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# RUNLEVEL=1: a daemon that comes with a package (mosquitto on port 1883) is not started by installing it
RUNLEVEL=1 apt-get install -qq --no-install-recommends -y "${missing[@]}" >/dev/null
