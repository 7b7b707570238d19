#!/bin/sh
# Sees that the programs named as arguments are on this machine. Debian's packages are installed where that may be done
# (root, or sudo without a password); otherwise one line says which to install.
set -eu
PATH="$PATH:/usr/sbin:/sbin"

package_of() {
  case $1 in
    sshd) echo openssh-server ;;
    ps) echo procps ;;
    *) echo "$1" ;;
  esac
}

missing=
for program; do
  command -v "$program" >/dev/null || missing="$missing $(package_of "$program")"
done

install() {
  command -v apt-get >/dev/null || return 1
  if [ "$(id -u)" = 0 ]; then as_root='env'; else as_root='sudo -n env'; $as_root true 2>/dev/null || return 1; fi
  log=$(mktemp)
  echo "twinline: installing Debian packages:$missing"
  # shellcheck disable=SC2086 # lists of words
  { $as_root apt-get update && $as_root DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $missing; } \
    </dev/null >"$log" 2>&1 || { tail -n 10 "$log" >&2; return 1; }
  rm -f "$log"
}

if [ -n "$missing" ] && ! install; then
  echo "twinline: missing on this machine; install first (Debian: sudo apt-get install$missing)" >&2
  exit 1
fi

# Debian's sshd, when root, wants this folder, which otherwise only its own start-up makes.
case " $* " in
  *' sshd '*) if [ "$(id -u)" = 0 ]; then mkdir -p -m 0755 /run/sshd; fi ;;
esac
