# shellcheck shell=bash
# Sourced by the Makefile, under `set -euo pipefail`. Provides what the tests need besides Python: Debian packages, and a
# temporary PostgreSQL and Redis on free loopback ports.
#
#   install_packages   installs missing packages with apt (as root, or with sudo without a password)
#   start_services     starts both servers, exports TEST_PG_URL and TEST_REDIS_URL, stops the servers when the shell exits
#   make_venv DIR PY   creates a virtual environment; installs Debian's python3-venv if it is missing
#
# If TEST_PG_URL or TEST_REDIS_URL is already set, that server is used and no other is started.

say() { printf '%s\n' "· $*"; }
complain() { printf '%s\n' "✗ $*" >&2; }
have() { command -v "$1" >/dev/null 2>&1; }
postgres_bin() { find /usr/lib/postgresql -path '*/bin/initdb' -printf '%h\n' 2>/dev/null | sort -V | tail -n 1; }

missing_packages() {
  have node || printf 'nodejs '
  have npm || printf 'npm '
  compgen -G '/usr/lib/*/faketime/libfaketimeMT.so.1' >/dev/null || printf 'faketime '
  [ -x /usr/bin/chromium ] || printf 'chromium '
  [ -x /usr/sbin/nginx ] || printf 'nginx '
  have bwrap || printf 'bubblewrap '
  [ -n "${TEST_REDIS_URL:-}" ] || have redis-server || printf 'redis-server '
  [ -n "${TEST_PG_URL:-}" ] || [ -n "$(postgres_bin)" ] || printf 'postgresql '
}

apt_install() {
  local sudo="" log
  if [ "$(id -u)" != 0 ]; then
    if have sudo && sudo -n true 2>/dev/null; then sudo="sudo -n"; else sudo="none"; fi
  fi
  if ! have apt-get || [ "$sudo" = none ]; then
    complain "missing: $* (install with: apt-get install $*)"
    return 1
  fi
  say "installing with apt: $*"
  if [[ " $* " == *" postgresql "* && ! -e /etc/postgresql-common/createcluster.conf ]]; then
    # Otherwise Debian creates and starts its own cluster. The options of apt below keep this file.
    $sudo mkdir -p /etc/postgresql-common
    echo 'create_main_cluster = false' | $sudo tee /etc/postgresql-common/createcluster.conf >/dev/null
  fi
  if [[ " $* " == *" nginx "* && -d /run/systemd/system ]]; then
    # Otherwise Debian starts it on port 80; the tests only need the program. Lasts until the next boot.
    $sudo systemctl --quiet mask --runtime nginx.service 2>/dev/null || true
  fi
  log=$(mktemp)
  # With the lock timeout, two runs on one machine wait for each other.
  if ! {
    $sudo apt-get -qq update &&
      $sudo env DEBIAN_FRONTEND=noninteractive UCF_FORCE_CONFFOLD=1 apt-get -qq -y -o DPkg::Lock::Timeout=300 \
        -o Dpkg::Options::=--force-confold --no-install-recommends install "$@"
  } </dev/null >"$log" 2>&1; then
    tail -n 15 "$log" >&2
    complain "apt could not install: $*"
    rm -f "$log"
    return 1
  fi
  rm -f "$log"
}

install_packages() {
  local packages
  read -r -a packages <<<"$(missing_packages)" || true
  [ "${#packages[@]}" = 0 ] || apt_install "${packages[@]}"
}

make_venv() {
  local dir=$1 python=$2
  if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    complain "$python is older than Python 3.11; use another one: make PY=/path/to/python3.11"
    return 1
  fi
  "$python" -m venv --clear "$dir" >/dev/null 2>&1 && return 0
  apt_install python3-venv
  "$python" -m venv --clear "$dir"
}

# Stays below the range that the kernel uses for outgoing connections, so that none of them can take the port meanwhile.
free_port() {
  local port
  while :; do
    port=$((20000 + RANDOM % 12000))
    if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
      echo "$port"
      return
    fi
  done
}

as_postgres() { # initdb refuses to run as root
  if [ "$(id -u)" = 0 ]; then runuser -u postgres -- "$@"; else "$@"; fi
}

stop_services() {
  local dir=${SERVICES_DIR:-} bin
  [ -n "$dir" ] || return 0
  SERVICES_DIR=""
  cd /
  bin=$(postgres_bin)
  [ ! -s "$dir/redis/pid" ] || kill "$(cat "$dir/redis/pid")" 2>/dev/null || true
  [ ! -s "$dir/pg/data/postmaster.pid" ] ||
    as_postgres "$bin/pg_ctl" -D "$dir/pg/data" -m immediate -w stop >/dev/null 2>&1 || true
  rm -rf "$dir"
}

start_postgres() {
  local dir=$SERVICES_DIR/pg bin port options
  bin=$(postgres_bin)
  port=$(free_port)
  mkdir "$dir"
  [ "$(id -u)" != 0 ] || chown postgres "$dir"
  # No fsync: the data is deleted after the run.
  options="-p $port -c listen_addresses=127.0.0.1 -c unix_socket_directories=$dir -c max_connections=200"
  options="$options -c fsync=off -c synchronous_commit=off -c full_page_writes=off"
  if ! (cd "$dir" &&
    as_postgres "$bin/initdb" -D "$dir/data" -U portal --auth=trust -E UTF8 --locale=C.UTF-8 --no-sync &&
    as_postgres "$bin/pg_ctl" -D "$dir/data" -w -t 60 -l "$dir/server.log" -o "$options" start &&
    as_postgres "$bin/createdb" -h 127.0.0.1 -p "$port" -U portal portal) >"$SERVICES_DIR/pg.log" 2>&1; then
    tail -n 15 "$SERVICES_DIR/pg.log" "$dir/server.log" >&2 || true
    complain "PostgreSQL did not start"
    return 1
  fi
  export TEST_PG_URL="postgresql://portal@127.0.0.1:$port/portal"
}

start_redis() {
  local dir=$SERVICES_DIR/redis port tries=0
  port=$(free_port)
  mkdir "$dir"
  redis-server --port "$port" --bind 127.0.0.1 --save "" --appendonly no --daemonize yes \
    --pidfile "$dir/pid" --logfile "$dir/log" --dir "$dir" >/dev/null
  until (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do
    tries=$((tries + 1))
    if [ "$tries" -gt 200 ]; then
      tail -n 15 "$dir/log" >&2 || true
      complain "Redis did not start"
      return 1
    fi
    sleep 0.05
  done
  export TEST_REDIS_URL="redis://127.0.0.1:$port/0"
}

start_services() {
  # Always in /tmp, not in TMPDIR: the user postgres must be able to reach it.
  SERVICES_DIR=$(mktemp -d /tmp/portal-services.XXXXXX)
  chmod 755 "$SERVICES_DIR"
  trap stop_services EXIT
  [ -n "${TEST_PG_URL:-}" ] || start_postgres
  [ -n "${TEST_REDIS_URL:-}" ] || start_redis
  say "PostgreSQL and Redis are running"
}
