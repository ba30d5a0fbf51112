#!/bin/bash
# The Debian packages that building, some tests and the yardsticks of `make bench` need. Run as root: make deps
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
  libpaho-mqtt-dev   # e2e: Paho C, for the client that the tests compile
  nodejs             # e2e: MQTT.js
  mosquitto          # make bench: a yardstick in the same run (tests start it on a free port of its own)
  nats-server        # make bench: the other yardstick, core NATS and JetStream
)

if [ "$(id -u)" -ne 0 ]; then
  echo "error: make deps installs Debian packages: run it as root" >&2
  exit 1
fi
if ! command -v apt-get >/dev/null; then
  echo "error: no apt-get here: install the counterparts of these yourself: ${packages[*]}" >&2
  exit 1
fi

# A nodejs that is not Debian's brings npm along and refuses Debian's package of it.
command -v npm >/dev/null || packages+=(npm)  # e2e: MQTT.js comes from the npm registry

missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q '^install ok installed$' || missing+=("$package")
done
if [ "${#missing[@]}" -eq 0 ]; then
  echo "every Debian package is there: ${packages[*]}"
else
  echo "installing ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  # RUNLEVEL=1: a daemon that comes with a package (mosquitto on port 1883, NATS on 4222) is not started by installing it
  RUNLEVEL=1 apt-get install -qq --no-install-recommends -y "${missing[@]}" >/dev/null
fi

# MQTT.js, as package-lock.json pins it by hashes, into a folder that git ignores; no script of a package is run.
js="$(dirname "$0")/../tests/e2e/js"
if cmp -s "$js/package-lock.json" "$js/node_modules/.installed-lock"; then
  echo "MQTT.js is there"
else
  echo "installing MQTT.js"
  npm ci --prefix "$js" --ignore-scripts --no-audit --no-fund --silent
  cp "$js/package-lock.json" "$js/node_modules/.installed-lock"
  chown -R --reference="$js" "$js/node_modules"  # not root's, where `make deps` ran by sudo in a user's tree
fi
