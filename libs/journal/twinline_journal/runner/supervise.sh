# One supervisor per task starts it, sees to its limits, and records how it ended.

die() { printf 'twinline: %s\n' "$*" >&2; exit 1; }

alive() { [ -n "$1" ] && since "$1" && [ "$since" = "$2" ]; }

read_boot() { host_boot=0; read -r host_boot </proc/sys/kernel/random/boot_id; }

seconds() { seconds=$(($1 / 100)).$(($1 / 10 % 10))$(($1 % 10)); }

nap() { seconds "$1"; sleep "$seconds" 2>/dev/null || sleep 1; }       # old sleeps know whole seconds only

# A script can put something else in the place of a file of ours: a pipe would hold its reader up for good.
plain() { [ -f "$1" ] && [ ! -h "$1" ]; }
# Looks for it first: it may appear in between.
strange() { { [ -e "$1" ] || [ -h "$1" ]; } && ! plain "$1"; }

file_size() { size=0; plain "$1" && [ -s "$1" ] || return 0; set -- $(ls -ln "$1"); size=${5:-0}; }

# Creates file $1 with the line $2, unless it is there: one caller wins.
create() {
    set -C
    { printf '%s\n' "$2" >"$1"; } 2>/dev/null
    set +C -- $?
    return "$1"
}

enter() {
    case $1 in '' | -* | *[!abcdefghijklmnopqrstuvwxyz0123456789-]*) die "bad task id '$1'" ;; esac
    id=$1 suffix=${2-} dir=$root/tasks/$1
    cd "$dir" 2>/dev/null
}

read_task() {
    timeout= kill_after=1000 max_output= task_boot=
    plain task && [ -s task ] && read -r _ _ timeout kill_after max_output task_boot <task
}

# $sup, $dog and $lead, each with its start time; empty when not written (yet). $claimed: there is a mark.
read_pid() {
    claimed= sup= sup_since= boot= dog= dog_since= lead= lead_since= began= began_at= part=
    [ -e pid ] || return 0
    claimed=yes
    plain pid || return 0       # nobody can claim it any more
    while read -r part a b c d; do
        case $part in
        supervisor) sup=$a sup_since=$b boot=$c ;;
        watchdog) dog=$a dog_since=$b ;;
        group) lead=$a lead_since=$b began=$c began_at=$d ;;
        esac
    done <pid
}

claim() { since $$; read_boot; create pid "supervisor $$ $since $host_boot"; }

# The script writes to a pipe (5), not to `output` itself, which `> /dev/stderr` in a script would empty. The copier takes
# it from there (4) and only ever appends (7). 6 holds the values of the environment, 9 rings for who follows.
supervise() {
    read_task || exit
    exec 7>>output              # where there is no room for it, nothing is claimed, and the next delivery starts it
    claim || exit
    cat <&4 >&7 2>/dev/null 4<&- 5>&- 6<&- 7>&- 9>&- &
    copier=$!
    since "$copier"; copier_since=$since
    watch 5>&- 6<&- 7>&- 9>&- &
    watchdog=$!
    since "$watchdog" && echo "watchdog $watchdog $since -" >>pid
    wait_for_lead
    exec 5>&- 6<&-
    set -- $ended
    [ $# = 2 ] || exit 1            # the waiter was killed: how the script ended is not known, so nothing is said
    conclude "$1" "$2"
}

# $ended = exit status and signal. By awk, because $? of sh is 137 for `exit 137` and for a SIGKILL alike. What awk's
# system() returns for a SIGKILL differs (256 + 9, the raw wait status, that over 256), so it is tried, and first where
# awk is not known to tell a signal from success. Not in the background and `wait`: the script would then have SIGINT and
# SIGQUIT ignored for good.
wait_for_lead() {
    export TWINLINE_LEAD="lead $suffix"
    ended=$(awk 'BEGIN {
        known = (getline map <"/proc/self/maps") > 0 && map ~ /\/(mawk|original-awk)$/
        close("/proc/self/maps")
        if (!known && !(killed = system("kill -9 $$"))) exit 3
        status = system("set -- $TWINLINE_LEAD; . \"$TWINLINE_RUNNER\""); signal = 0
        if (status && known) killed = system("kill -9 $$")
        if (killed < 1) status *= 256
        if (killed < 256) { signal = status % 128; status = int(status / 256) }
        else if (status >= 256) signal = status % 256
        print (signal ? 128 + signal : status), signal
    }')
    [ $? != 3 ] || wait_for_lead_by_words
}

# The awk of busybox takes a signal for success. Its sh names the signal on stderr, all but SIGINT and SIGPIPE.
wait_for_lead_by_words() {
    { $shell "$self" $TWINLINE_LEAD; status=$?; } 2>words
    [ -s words ] || [ $status = 130 ] || [ $status = 141 ] && signal=$((status - 128)) || signal=0
    ended="$status $signal"
}

# Keeps the limits, also when the supervisor is gone; ends with the script.
watch() {
    nap=
    trap 'kill $nap 2>/dev/null; exit 0' TERM
    read_clock; watched_from=$clock
    while :; do
        tick=100; read_clock
        [ "$timeout" = - ] || { left=$((watched_from + timeout - clock)); [ "$left" -lt 100 ] && tick=$left; }
        [ "$tick" -gt 0 ] || { create stop timed_out && end; exit 0; }
        seconds "$tick"
        sleep "$seconds" 2>/dev/null &
        nap=$!
        wait "$nap" || sleep 1
        nap=
        trim
        [ -z "$copier" ] || alive "$copier" "$copier_since" || { copier=; drain; }     # or the script would wait for it
        read_pid
        alive "$lead" "$lead_since" || { [ -z "$lead" ] && alive "$sup" "$sup_since"; } || break
    done
    [ -z "$copier" ] || alive "$sup" "$sup_since" || finish_copy
}

# Output past the limit is cut off (the script notices nothing) and counted; no reader ever looks past the limit.
trim() {
    dropped=0
    plain dropped && read -r dropped <dropped
    file_size output
    [ "$size" -gt "$max_output" ] || return 0
    dd if=/dev/null of=output bs=1 seek="$max_output" count=0 2>/dev/null
    dropped=$((dropped + size - max_output)) size=$max_output
    echo "$dropped" >dropped
}

# What `trim` tells, and mostly by no process: the copier's place in the file is ours too.
measure() {
    dropped=0
    plain output && [ ! -e dropped ] && read -r _ size </proc/self/fdinfo/7 && [ "$size" -le "$max_output" ] || trim
}

# All that was written before now is in `output`: the copier has ended, or sleeps, which it does at an empty pipe only.
# What processes that the script left behind write from here on goes nowhere, and does not end them.
finish_copy() {
    while alive "$copier" "$copier_since"; do
        [ "$mode" != S ] || { drain; kill "$copier"; wait "$copier"; return; }
        nap 1
    done
    wait "$copier" || { lost=1; drain; }
}

drain() { cat <&4 >/dev/null 2>&1 4<&- 7>&- 9>&- & }

conclude() {
    reason=exited status=$1
    [ "$2" = 0 ] || reason=signaled
    read_pid; read_clock; sum=
    [ -z "$began" ] || add "$began" $((clock - began_at))
    if [ -e stop ]; then
        told=
        plain stop && { read -r reason && { read -r told || :; }; } <stop || reason=canceled
        case $reason in canceled | timed_out) ;; *) reason=canceled told= ;; esac   # a full disk left it empty
        [ -n "$began" ] || status=      # the script never ran
        # It ended by itself just before anybody told it to: those in its group have heard nothing yet.
        [ -n "$told" ] || [ -z "$lead" ] || kill -TERM "-$lead" 2>/dev/null
        wait_for_group
    fi
    kill "$watchdog" 2>/dev/null
    wait "$watchdog"
    lost=0
    finish_copy
    measure
    [ "$dropped" -gt 0 ] || dropped=$lost
    until record "reason=$reason status=$status signal=$2 size=$size dropped=$dropped started=$began ended=$sum"; do
        [ -d "$dir" ] || exit 1     # somebody removed the journal
        sleep 5                     # a full disk: the outcome is worth waiting for room
    done
    for left in work/* work/.[!.]* work/..?* words; do
        if [ -e "$left" ] || [ -h "$left" ]; then rm -rf work words; break; fi
    done
    [ ! -p /proc/self/fd/9 ] || echo >&9
}

# $sum = $1 seconds, which may have a fraction, and $2 hundredths.
add() {
    whole=${1%.*} part=${1#"${1%.*}"}; part=${part#.}
    case $part in ??*) rest=${part#??} part=${part%"$rest"} ;; *) rest= part=00 ;; esac
    seconds $((whole * 100 + 1$part - 100 + $2)); sum=$seconds$rest
}

record() {
    dd of=exit conv=fsync 2>/dev/null <<EOF
$1
EOF
}

# TERM to the whole group, KILL to what is left after the grace. Only while the script itself lives is the group surely
# ours: its number may be another's after a reboot, or long after the script's end. The mark in `stop` is for `conclude`.
end() {
    read_task; read_boot; read_pid; read_clock; deadline=$((clock + kill_after))
    [ "$boot" = "$host_boot" ] && alive "$lead" "$lead_since" || return 0
    ! plain stop || echo told >>stop
    while ! kill -TERM "-$lead" 2>/dev/null; do
        read_clock                  # it has told its number, and makes its group next
        [ "$clock" -lt "$deadline" ] || { kill -KILL "-$lead" 2>/dev/null || kill -KILL "$lead"; return; }
        nap 5
        alive "$lead" "$lead_since" || return 0
    done
    wait_for_group
}

# What is left of a group that was ours a moment ago.
wait_for_group() {
    read_clock; deadline=$((clock + kill_after))
    while [ -n "$lead" ] && group_alive; do
        read_clock
        [ "$clock" -lt "$deadline" ] || { kill -KILL "-$lead" 2>/dev/null; return; }
        nap 5
    done
}

# To `kill` a group of zombies is alive, and where nobody reaps them it stays so.
group_alive() {
    kill -0 "-$lead" 2>/dev/null || return 1
    ! alive "$lead" "$lead_since" || return 0
    for process in /proc/[0-9]*; do
        since "${process#/proc/}" && [ "$pgrp" = "$lead" ] && return
    done
    return 1
}

find_umask() {
    while read -r word TWINLINE_UMASK; do [ "$word" != Umask: ] || return 0; done </proc/self/status
    TWINLINE_UMASK=$(umask)             # an old kernel does not tell
}

# What a supervisor, and a command line, begin with.
[ -n "${TWINLINE_UMASK-}" ] || find_umask
export TWINLINE_UMASK
umask 077
root=${TWINLINE_JOURNAL:-$HOME/.twinline/journal} shell=${TWINLINE_SHELL:-sh}
self=${TWINLINE_RUNNER:-$0}     # set by the `sh` over SSH that reads this in
verb=$1 state=; shift
case $verb in supervise | end) enter "$1" "${2-}" && "$verb"; exit ;; esac
