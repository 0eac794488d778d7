#!/bin/sh
# Prepares a fresh Debian or Ubuntu for `make demo` and `make test`: system packages where a program
# is missing, and the virtual environment. Says what it does and why; does nothing the second time.
#
#   tests/bootstrap.sh system    the system's packages
#   tests/bootstrap.sh peers     what the benchmarks measure against, as far as it can be had
#   tests/bootstrap.sh venv      .venv, with this project and its development tools
set -eu
cd "$(dirname "$0")/.."

# program:package:reason. A program that is there, from wherever, is not installed again.
NEEDED='
ssh:openssh-client:the tunnel itself
sshd:openssh-server:the remote host of the tests is a real one
ip:iproute2:addresses and routes in the laboratory
nft:nftables:the firewall that the program uses
iptables:iptables:servers without nft are tested too
sudo:sudo:the person in the tests is not root
unshare:util-linux:namespaces
sysctl:procps:settings of the kernel
ping:iputils-ping:who reaches whom
curl:curl:what a browser would see
busybox:busybox:servers with nothing but busybox are tested too
dnsmasq:dnsmasq-base:what sshvpn routes prints is given to a real DHCP server
dhclient:isc-dhcp-client:and taken by a real client of it
ufw:ufw:the VPN is tested where it drops what is forwarded
firewalld:firewalld:the VPN is tested where it rejects what is forwarded
dbus-daemon:dbus:firewalld and avahi speak by it
NetworkManager:network-manager:it must leave the device of the VPN alone
udevadm:udev:which tells it so
avahi-daemon:avahi-daemon:the names that the local network is told are heard by another mDNS
avahi-browse:avahi-utils:and looked up, and browsed
tmux:tmux:a terminal for the live view
chromium:chromium:a real browser opens the notebook from the local network
chromedriver:chromium-driver:and is driven, of the same version
systemd-nspawn:systemd-container:services are tested under a real systemd
debootstrap:debootstrap:in a Debian of its own
zsh:zsh:completion, and login shells of a server
fish:fish:completion, and login shells of a server
tcsh:tcsh:login shells of a server
strace:strace:every command line and environment while a notebook is started
cc:gcc:a library that sets the clock of a machine in the tests wrong
'

# The tests do without them, and a benchmark leaves out what is not there.
PEERS='
openvpn:openvpn:a peer of the VPN
wireguard-go:wireguard-go:a peer of the VPN
wg:wireguard-tools:which is configured by it
sshuttle:sshuttle:a peer of the VPN
openssl:openssl:certificates for OpenVPN
'

say() { printf '%s\n' "* $*" >&2; }

find_program() { PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin" command -v "$1" >/dev/null 2>&1; }

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"
  elif find_program sudo; then sudo "$@"
  else
    say "this needs root and there is no sudo; as root, run: $*"
    exit 1
  fi
}

# Installs the packages given. A machine that had no sshd and no firewall must not get one that runs
# (ufw is off until somebody says `ufw enable`): Debian asks /usr/sbin/policy-rc.d before it starts
# a service, and 101 forbids it. One that is there is obeyed.
install_packages() {
  if ! command -v apt-get >/dev/null 2>&1; then
    say "this is not Debian or Ubuntu; please install: $*"
    exit 1
  fi
  [ "$(id -u)" = 0 ] || say "installing needs root: sudo may ask for your password"
  # shellcheck disable=SC2016 # expanded by the inner shell
  as_root sh -c '
    set -eu
    export DEBIAN_FRONTEND=noninteractive
    policy=/usr/sbin/policy-rc.d
    if [ ! -e $policy ]; then
      trap "rm -f $policy" EXIT
      printf "#!/bin/sh\nexit 101\n" >$policy
      chmod 755 $policy
    fi
    had=$(cd /usr/sbin && ls sshd firewalld NetworkManager avahi-daemon 2>/dev/null || true)
    apt-get update -qq
    apt-get install -qq -y --no-install-recommends "$@" >/dev/null
    [ -d /run/systemd/system ] || exit 0
    # Nor at the next boot: what the laboratory needs is not meant for the world.
    forget() { systemctl disable --quiet "$@" 2>/dev/null || true; }
    case $had in *sshd*) ;; *) forget ssh.service ssh.socket ;; esac
    case $had in *firewalld*) ;; *) forget firewalld.service ;; esac
    case $had in *NetworkManager*) ;; *) forget NetworkManager.service ;; esac
    case $had in *avahi*) ;; *) forget avahi-daemon.service avahi-daemon.socket ;; esac
  ' sh "$@"
}

prepare_system() {
  missing=
  while IFS=: read -r program package reason; do
    if [ -n "$program" ] && ! find_program "$program"; then
      say "$program is missing: will install $package ($reason)"
      missing="$missing $package"
    fi
  done <<END
$NEEDED
END
  case "$missing " in
  *" openssh-server "*) say "(it is not started: this machine itself will not be reachable by it)" ;;
  esac
  case "$missing " in
  *" ufw "* | *" firewalld "*) say "(neither is started: this machine's own firewall stays as it is)" ;;
  esac
  # shellcheck disable=SC2086 # a list
  [ -z "$missing" ] || install_packages $missing
}

prepare_peers() {
  command -v apt-get >/dev/null 2>&1 || return 0
  while IFS=: read -r program package reason; do
    if [ -n "$program" ] && ! find_program "$program"; then
      say "$program is missing: will install $package ($reason)"
      # One that the system does not have is left out.
      (install_packages "$package") </dev/null || say "$package cannot be had"
    fi
  done <<END
$PEERS
END
}

is_new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; }

# The system's own Python first: it can be read by everybody, as the laboratory's people need.
find_python() {
  for python in ${PYTHON:-} /usr/bin/python3 python3 python3.13 python3.12 python3.11 python3.10; do
    if is_new_enough "$python"; then
      command -v "$python"
      return
    fi
  done
  say "no Python 3.10 or newer was found"
  exit 1
}

prepare_venv() {
  stamp=.venv/.installed
  if [ -e "$stamp" ] && [ -z "$(find pyproject.toml tests/bootstrap.sh -newer "$stamp")" ]; then
    return
  fi
  if ! [ -e /usr/bin/python3 ] && ! command -v python3 >/dev/null 2>&1; then
    say "python3 is missing: will install python3 and python3-venv (the program is written in it)"
    install_packages python3 python3-venv
  fi
  python=$(find_python)
  if ! .venv/bin/python -c '' 2>/dev/null; then
    if ! "$python" -c 'import ensurepip' 2>/dev/null; then
      version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
      say "python3-venv is missing: will install it (to make the virtual environment)"
      install_packages "python$version-venv" || install_packages python3-venv
    fi
    say "making the virtual environment .venv with $python"
    "$python" -m venv --clear .venv
  fi
  say "installing this project and its tools into .venv (once)"
  PIP_DISABLE_PIP_VERSION_CHECK=1 .venv/bin/python -m pip install --quiet --editable '.[dev]'
  touch "$stamp"
}

# VERSION: the unit tests under that Python, in an environment of its own; not here is a word.
test_python() {
  for python in "python$1" "${PYENV_ROOT:-$HOME/.pyenv}/versions/$1".*/bin/python; do
    if "$python" -c '' 2>/dev/null; then
      say "the unit tests under $("$python" --version)"
      [ -x ".venv-$1/bin/python" ] || "$python" -m venv ".venv-$1"
      PIP_DISABLE_PIP_VERSION_CHECK=1 ".venv-$1/bin/python" -m pip install --quiet --editable '.[dev]'
      ".venv-$1/bin/python" -m pytest -p no:cacheprovider -n 2 tests/unit
      return
    fi
  done
  say "Python $1 is not here: left out"
}

case ${1:-} in
python) test_python "${2:?VERSION}" ;;
system) prepare_system ;;
peers) prepare_peers ;;
venv) prepare_venv ;;
*)
  say "usage: tests/bootstrap.sh system|peers|venv|python VERSION"
  exit 2
  ;;
esac
