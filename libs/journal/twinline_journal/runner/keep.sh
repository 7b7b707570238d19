# What few tasks need: cancel, withdraw, and how long a journal is kept.

# Both also for a task this host has not seen yet: it is then known, and never starts.
cancel() {
    find_tools
    made || return 0
    create stop canceled
    forestalled || detached end "$id"
}

# One that has started is let alone.
withdraw() { ! made || forestalled; return 0; }

# Makes the journal, unless the task has ended.
made() {
    mkdir -p "$dir" && enter "$id" || die "cannot make $dir"
    [ ! -e exit ]
}

# Takes the start from whoever comes later; fails when somebody has it already.
forestalled() {
    claim || return
    record 'reason=canceled status= signal=0 size=0 dropped=0 started= ended=' || die "cannot write $dir/exit"
}

forget() {
    for id in "$@"; do
        enter "$id" || continue
        look
        case $state in finished | interrupted) create forgotten '' ;; *) say ;; esac
    done
    lately || sweep 1048576
}

# Whether this host swept within an hour: it asks most of a forgetting. Else it does now.
lately() {
    boot= swept=
    read_boot; read_clock
    if plain "$root/swept"; then read -r boot swept <"$root/swept"; fi
    case $swept in '' | *[!0-9]*) boot= ;; esac
    [ "$boot" = "$host_boot" ] && [ $((clock - swept)) -lt 360000 ] && return
    echo "$host_boot $clock" >"$root/swept"
    return 1
}

# Forgotten journals stay a week, so that a late second delivery finds them; when all together hold more than so many
# KiB, what no delivery needs of them goes sooner, the oldest first. Ended ones that nobody ever forgot, for the word was
# lost or its sender is no more, stay 30 days, whole.
sweep() {
    rm -rf "$root"/dropped-*        # of a sweep that was cut off
    cd "$root/tasks" 2>/dev/null || return 0
    find . -maxdepth 2 -name forgotten -mtime +7 2>/dev/null | while IFS=/ read -r _ id _; do drop "$id"; done
    find . -maxdepth 1 -name '[a-z0-9]*' -mtime +30 2>/dev/null | while IFS=/ read -r _ id; do
        (enter "$id" && look && case $state in finished | interrupted) drop "$id" ;; esac)
    done
    disk_use .
    [ "$kib" -le "$1" ] || shed $((kib - $1))
}

# Frees $1 KiB of forgotten tasks, as far as what they leave can be spared: their scripts, and output of which `exit` says
# how much there was. All sizes by one process, and one to remove those of many tasks: this may be a small host.
shed() {
    { du -ak . 2>/dev/null; echo; ls -1tr; } | awk -F/ -v over="$1" '
        !NF { listed = 1 }
        !listed && NF == 3 && $2 ~ /^[a-z0-9-]+$/ {
            if ($3 ~ /^(script[.0-9]*|work)$/) { kib[$2] += $1; spare[$2] = spare[$2] " " $2 "/" $3 }
            else if ($3 == "output") output[$2] = $1 + 0
            else if ($3 == "exit") ended[$2]
            else if ($3 == "forgotten") forgotten[$2]
        }
        listed && over > 0 && ($1 in forgotten) {
            if (($1 in ended) && ($1 in output)) { kib[$1] += output[$1]; spare[$1] = spare[$1] " " $1 "/output" }
            if ($1 in spare) { over -= kib[$1]; line = line spare[$1]; if (++tasks % 50 == 0) { print line; line = "" } }
        }
        END { if (line) print line }' |
        while read -r files; do rm -rf $files; done
}

# $kib of a folder.
disk_use() { set -- $(du -sk "$1" 2>/dev/null); kib=${1:-0}; }

# First out of the way, then removed: half a journal must never be seen.
drop() { mv "$root/tasks/$1" "$root/dropped-$1.$$" && rm -rf "$root/dropped-$1.$$"; }

case $verb in
status) enter "$1"; look; say ;;
cancel | withdraw) enter "$1"; $verb; look; say ;;
forget) forget "$@" ;;
sweep) sweep "${1-1048576}" ;;
*) die "unknown command '$verb'" ;;
esac
exit
