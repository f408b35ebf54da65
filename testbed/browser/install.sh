#!/bin/sh
# A headless browser for tests/status, where continuous integration has none yet. Without one those tests are skipped, loudly.
if command -v chromium >/dev/null && command -v chromedriver >/dev/null; then exit 0; fi
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  export DEBIAN_FRONTEND=noninteractive
  (timeout 120 apt-get -qq update && timeout 480 apt-get -qq install -y --no-install-recommends chromium chromium-driver) >/dev/null 2>&1 && exit 0
fi
echo "There is no chromium with chromedriver, and it could not be installed: the status page will not be tested in a browser."
