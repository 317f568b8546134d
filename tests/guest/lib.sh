# What the scripts of the guest tests share. Sourced under `set -euo pipefail` in front of each.

# Says what failed, and ends the script.
die() {
    echo "guest: $*" >&2
    exit 1
}

# `says PATTERN COMMAND…`: it succeeds and prints the pattern. A pipe into `grep -q` would kill it before it has said all.
says() {
    local pattern=$1 said
    shift
    said=$("$@") && grep -q -- "$pattern" <<<"$said" && return
    echo "guest: $pattern was not said by: $*: $said" >&2
    return 1
}

# Something to wait on that never speaks: `pause SECONDS` without a process, which costs 10 ms and more under emulation.
exec {idle}<> <(:)
pause() { read -rt "$1" -u "$idle" || true; }

# `await SECONDS COMMAND…`: until it succeeds.
await() {
    local until=$((SECONDS + $1))
    shift
    until "$@"; do
        [ "$SECONDS" -lt "$until" ] || die "never came: $*"
        pause 0.1
    done
}

# Starts open-iscsi's daemon, with settings in the form of iscsid.conf behind Debian's own.
start_iscsid() {
    {
        cat /etc/iscsi/iscsid.conf
        echo 'iscsid.startup = /bin/true'
        echo 'node.conn[0].tcp.window_size = 4194304'
        printf '%s\n' "$@"
    } >/run/iscsid.conf
    cp /run/iscsid.conf /etc/iscsi/iscsid.conf
    mkdir -p /run/lock/iscsi
    modprobe iscsi_tcp
    iscsid
}

# `login PORTAL`: discovery and login to all that it names.
login() {
    iscsiadm -m discovery -t sendtargets -p "$1"
    iscsiadm -m node --login
    udevadm settle --timeout=60
}

# After udev has looked at what the last program closed: a look at a device that goes away is an I/O error in the log.
logout() {
    udevadm settle --timeout=60
    iscsiadm -m node --logout
    udevadm settle --timeout=60
}

# `device LUN KIND`: the node of a LUN of the (first) session; KIND is block, scsi_tape, scsi_generic or scsi_changer.
device() {
    local folder=(/sys/class/scsi_device/*:"$1"/device/"$2"/*)
    [ -e "${folder[0]}" ] || return 1
    case $2 in
        scsi_tape) echo "/dev/n$(basename "${folder[0]}" | sed 's/^nst/st/; s/[lam]$//')" ;;
        *) echo "/dev/${folder[0]##*/}" ;;
    esac
}

# No packet in or out, without a word to either side; and back. `cut_network PORT` cuts what goes to one port only.
cut_network() {
    iptables -I INPUT -i eth0 ${1:+-p tcp --sport "$1"} -j DROP
    iptables -I OUTPUT -o eth0 ${1:+-p tcp --dport "$1"} -j DROP
}

mend_network() {
    iptables -F OUTPUT
    iptables -F INPUT
}

# `writes_of DISK`: how many write commands have been answered.
writes_of() {
    local line
    read -ra line <"/sys/block/${1#/dev/}/stat"
    echo "${line[4]}"
}

# `await_writes DISK [COUNT]`: until more have been answered than now.
await_writes() {
    local wanted=$(($(writes_of "$1") + ${2:-8}))
    enough() { [ "$(writes_of "$1")" -ge "$wanted" ]; }
    await 100 enough "$1"
}
