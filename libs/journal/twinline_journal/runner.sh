#!/bin/sh
# The task runner: starts a task at most once on this host, keeps its journal, and answers from its files alone.
#
#   start | run ID OFFSET        a framed task on stdin; `run` then follows it
#   follow ID OFFSET [MARKER]    output from OFFSET on stdout until the end, status lines on stderr
#   status ID | cancel ID | withdraw ID | forget ID... | sweep [KIB]
#   supervise | lead | end       inner steps, each in its own process
#
# Files of <root>/tasks/<id>/, and who writes them:
#   task     start      limits and the host's boot id; fsynced before the acknowledgement, so a reboot is always noticed
#   script   start
#   env      start      0600; gone once `lead` has read it
#   pid      supervise  line 1, created exclusively: whoever creates it, and nobody else, may start the script
#            supervise  line 2: the watchdog, and its start time
#            lead       line 3: process group, its start time, when
#   work/    start, or else lead: where the script begins; gone at the end
#   pipe     start; gone at the end
#   output   the copier, a `tee` from that pipe: the script stdout and stderr, append only
#   stop     cancel, or the watchdog: why the script is being ended
#   exit     supervise  one line, by rename
#
# Needs Linux, a POSIX sh (dash, bash, busybox) and awk, cat, date, dd, du, env, find, head, id, ls, mkdir, mkfifo, mv,
# rm, rmdir, sleep, tee; and setsid, or else perl. Times are hundredths of a second, for sh has no fractions.
set -u

say() { printf 'twinline-status id=%s state=%s %s\n' "$id" "$state" "$detail" >&2; }
die() { printf 'twinline: %s\n' "$*" >&2; exit 1; }

# --- the host ---------------------------------------------------------------------------------------------------------

# $since = start time of process $1, $pgrp its group, $mode its state; fails when it is gone or a zombie. The name in
# /proc/PID/stat may hold anything, blanks, brackets and newlines too, so fields are counted from the last bracket.
since() {
    since= pgrp= mode= stat= part=
    [ -r "/proc/$1/stat" ] || return 1
    { while read -r part; do stat="$stat $part"; done <"/proc/$1/stat"; } 2>/dev/null
    set -- ${stat##*) }
    [ $# -ge 20 ] && [ "$1" != Z ] && [ "$1" != X ] && since=${20} pgrp=$3 mode=$1
}

alive() { [ -n "$1" ] && since "$1" && [ "$since" = "$2" ]; }

read_boot() { host_boot=0; read -r host_boot </proc/sys/kernel/random/boot_id; }

# $clock never jumps when somebody sets the time.
read_clock() {
    read -r clock _ </proc/uptime
    clock=$((${clock%.*} * 100 + 1${clock#*.} - 100))       # "08" would be a bad octal number
}

read_epoch() { epoch=$(date +%s.%N); case $epoch in *[!0-9.]* | *.) epoch=${epoch%%.*} ;; esac; }

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

# $group starts a command in a process group of its own, $detach also lets go of it, without `&` (see wait_for_lead):
# a setsid that leads a group forks, hence two of them detach.
find_group() {
    for tool in awk env id mkfifo tee; do command -v $tool >/dev/null || die "no $tool on this host: install it"; done
    if command -v setsid >/dev/null; then group=setsid detach='setsid setsid'
    elif command -v perl >/dev/null; then
        group='perl -MPOSIX -e setsid;exec@ARGV' detach='perl -MPOSIX -e fork&&exit;setsid;exec@ARGV'
    else die 'no setsid and no perl on this host: install util-linux'; fi
}

detached() { $detach $shell "$self" "$@" </dev/null >/dev/null 2>&1; }

# --- a journal's files (the working directory is the task's) ----------------------------------------------------------

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
    claimed= sup= sup_since= boot= dog= dog_since= lead= lead_since= began= part=
    [ -e pid ] || return 0
    claimed=yes
    plain pid || return 0       # nobody can claim it any more
    while read -r part a b c; do
        case $part in supervisor) sup=$a sup_since=$b boot=$c ;; watchdog) dog=$a dog_since=$b ;; group) lead=$a lead_since=$b began=$c ;; esac
    done <pid
}

claim() { since $$; read_boot; create pid "supervisor $$ $since $host_boot"; }

# A script can write to `exit` too: what is no record of ours says only that the end is not known.
finished() {
    if plain exit; then read -r detail 2>/dev/null <exit || return
    else strange exit || return; fi
    state=finished size=${detail##* size=} size=${size%% *}
    case $detail in reason=[a-z]*' status='*' signal='*' size='*' dropped='*' started='*' ended='*)
        case $size in '' | *[!0-9]*) ;; *) return 0 ;; esac
    esac
    unreadable
}

unreadable() { state=interrupted detail='reason=journal_unreadable size=0 started=' size=0; }

# $state, $detail and $size of the task, from its files alone.
look() {
    detail= size=0 state=absent
    [ -d "$dir" ] || return 0
    finished && return
    if strange task || strange pid; then unreadable; return; fi
    state=accepted why=
    read_task; read_boot; read_pid
    for _ in 1 2 3 4 5; do          # created, but its line not written yet
        [ -n "$claimed" ] && [ -z "$sup" ] || break
        nap 10; read_pid
    done
    judge
    [ "$state" = interrupted ] && finished && return      # it was written while we looked
    file_size output
    [ -n "$max_output" ] && [ "$size" -gt "$max_output" ] && size=$max_output
    detail="reason=$why size=$size started=$began"
}

judge() {
    if [ "${boot:-${task_boot:-$host_boot}}" != "$host_boot" ]; then state=interrupted why=host_rebooted
    elif [ -n "$lead" ]; then
        # Whose supervisor was killed runs until the watchdog has seen to its last output.
        if alive "$lead" "$lead_since" || alive "$sup" "$sup_since" || alive "$dog" "$dog_since"; then state=running
        else state=interrupted why=process_gone; fi
    elif [ -n "$claimed" ] && ! alive "$sup" "$sup_since"; then state=interrupted why=start_unknown
    fi
}

# --- start ------------------------------------------------------------------------------------------------------------

start() {
    word= version= env=
    read -r word version id digest bytes limits     # limits: timeout (or -), kill_after, max_output
    [ "$word $version" = 'twinline-task 1' ] || die 'no task frame on stdin: send one made for this runner'
    [ "${1-$id}" = "$id" ] || die "the frame is for $id, not $1"
    IFS= read -r env; find_group
    if enter "$id" || ! make_directory; then
        enter "$id" || die "cannot make $dir"
        settled && return
        suffix=.$$                      # whoever made the directory was cut off: our files do not meet theirs
    fi
    receive
    detached supervise "$id" "$suffix"
}

make_directory() {
    [ -d "$root/tasks" ] || mkdir -p "$root/tasks" || die "cannot make $root/tasks"
    mkdir "$dir" "$dir/work" 2>/dev/null && cd "$dir"
}

# Whether somebody else has the start in hand. Waiting is only thrift: `claim` decides who starts.
settled() {
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        look
        [ "$state" != absent ] || die "the first delivery of $id was cut off: send it again"
        [ "$state" = accepted ] && [ -z "$claimed" ] || return 0
        nap 10
    done
    return 1
}

receive() {
    [ -z "$env" ] || printf %b "$env" >"env$suffix" || discard "cannot write $dir/env"
    mkfifo "pipe$suffix" || discard "cannot make $dir/pipe: the journal needs a file system with pipes"
    head -c "$bytes" >"script$suffix"
    file_size "script$suffix"
    [ "$size" = "$bytes" ] || discard "script of $id came incomplete, $size of $bytes bytes: send it again"
    read_boot
    [ -s task ] || dd of=task conv=fsync 2>/dev/null <<EOF || { rm -f task; discard "cannot write $dir/task"; }
$id $digest $limits $host_boot
EOF
}

discard() {
    rm -f "env$suffix" "script$suffix" "pipe$suffix"
    [ "$(echo *)" != work ] || rmdir work "$dir" 2>/dev/null     # or somebody else delivers it, whose script is in there
    die "$@"
}

# --- supervise: one process per task ----------------------------------------------------------------------------------

supervise() {
    read_task && claim || { rm -f "env$suffix" "pipe$suffix"; exit; }
    find_group
    copy
    watch 5>&- &
    watchdog=$!
    since "$watchdog" && echo "watchdog $watchdog $since -" >>pid
    set -- $(wait_for_lead)
    exec 5>&-
    [ $# = 2 ] || exit 1            # the waiter was killed: how the script ended is not known, so nothing is said
    conclude "$1" "$2"
}

# The script writes to a pipe (5), not to `output` itself, which `> /dev/stderr` in a script would empty. The copier takes
# it from there (4) and only ever appends; where the disk is full, `tee` drops what comes and the script goes on. Opened
# both ways first, because either end would wait for the other.
copy() {
    exec 3<>"pipe$suffix" 4<"pipe$suffix" 5>"pipe$suffix" 3>&-
    tee -a output <&4 >/dev/null 2>&1 4<&- 5>&- &
    copier=$!
    since "$copier"; copier_since=$since
}

# All that was written before now is in `output`: the copier has ended, or sleeps, which it does at an empty pipe only.
# What processes that the script left behind write from here on goes nowhere, and does not end them.
finish_copy() {
    while alive "$copier" "$copier_since"; do
        [ "$mode" != S ] || { drain; kill "$copier"; wait "$copier"; return; }
        nap 1
    done
    wait "$copier" || lost=1
}

drain() { cat <&4 >/dev/null 2>&1 4<&- & }

# Prints exit status and signal. In awk, because $? of sh is 137 for `exit 137` and for a SIGKILL alike. What awk's
# system() returns for a SIGKILL differs (256 + 9, the raw wait status, that over 256), so it is tried first. Not in the
# background and `wait`: the script would then have SIGINT and SIGQUIT ignored for good.
wait_for_lead() {
    TWINLINE_GROUP="$group $shell" TWINLINE_SELF=$self TWINLINE_TASK="$id $suffix" awk 'BEGIN {
        killed = system("kill -9 $$")
        if (!killed) exit 3
        status = system("exec $TWINLINE_GROUP \"$TWINLINE_SELF\" lead $TWINLINE_TASK"); signal = 0
        if (killed < 1) status *= 256
        if (killed < 256) { signal = status % 128; status = int(status / 256) }
        else if (status >= 256) signal = status % 256
        print (signal ? 128 + signal : status), signal
    }'
    [ $? = 3 ] && wait_for_lead_by_words
}

# The awk of busybox takes a signal for success. Its sh names the signal on stderr, all but SIGINT and SIGPIPE.
wait_for_lead_by_words() {
    { $group $shell "$self" lead "$id" "$suffix"; status=$?; } 2>words
    [ -s words ] || [ $status = 130 ] || [ $status = 141 ] && signal=$((status - 128)) || signal=0
    echo "$status $signal"
}

# Turns into the script. It tells its numbers before it looks at `stop`, `cancel` does it the other way round:
# one of the two always sees the other.
lead() {
    since $$; read_epoch
    echo "group $$ $since $epoch" >>pid || exit 126
    [ ! -e stop ] || exit 0
    exec </dev/null >&5 2>&1 4<&- 5>&-
    cd work 2>/dev/null || { mkdir work && cd work; } || exit 126
    interpreter "$dir/script$suffix"
    account
    umask "$TWINLINE_UMASK"
    set -- "$interp" ${arg:+"$arg"} "$dir/script$suffix"
    [ ! -e "$dir/env$suffix" ] || set -- /bin/sh -c "$become" sh "$dir/env$suffix" "$@"
    # The same for every script, whoever started the runner: nothing shows of a login, or of an agent's unit. The last
    # one, where it is set, marks what runs on a machine of the local cloud.
    exec env -i PATH="$standard_path" HOME="$home" USER="$account" LOGNAME="$account" SHELL=/bin/sh LANG=C.UTF-8 \
        ${TWINLINE_INSTANCE:+TWINLINE_INSTANCE="$TWINLINE_INSTANCE"} "$@"
}

standard_path=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

# From the values of the task on any variable may be the user's, PATH too.
become='. "$1"; (PATH='$standard_path'; exec rm -f "$1"); shift; exec "$@"'

# $account and its $home, which a unit without a user does not tell.
account() {
    account=$(id -un 2>/dev/null) || account=$(id -u)
    home=${HOME-}
    [ -z "$home" ] || return
    case $account in [0-9]* | *[!A-Za-z0-9._-]*) home=/ ;; *) eval "home=~$account" ;; esac
}

# As the kernel reads #!, but needing neither an x bit nor a file system that allows exec.
interpreter() {
    interp= arg= first=
    IFS= read -r first <"$1"
    case $first in
    '#!'*) read -r interp arg <<EOF
${first#??}
EOF
    esac
    [ -n "$interp" ] && return
    if [ -x /bin/bash ]; then interp=/bin/bash arg=-e; else interp=/bin/sh arg=-e; fi
}

# Keeps the limits, also when the supervisor is gone; ends with the script.
watch() {
    nap=
    trap 'kill $nap 2>/dev/null; exit 0' TERM
    read_clock; began_at=$clock
    while :; do
        tick=100; read_clock
        [ "$timeout" = - ] || { left=$((began_at + timeout - clock)); [ "$left" -lt 100 ] && tick=$left; }
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

conclude() {
    reason=exited
    [ "$2" = 0 ] || reason=signaled
    read_pid
    [ ! -e stop ] || { plain stop && read -r reason <stop || reason=canceled; wait_for_group; }
    kill "$watchdog" 2>/dev/null
    wait "$watchdog"
    lost=0
    finish_copy
    trim; read_epoch
    [ "$dropped" -gt 0 ] || dropped=$lost
    until record "reason=$reason status=$1 signal=$2 size=$size dropped=$dropped started=$began ended=$epoch"; do
        [ -d "$dir" ] || exit 1     # somebody removed the journal
        sleep 5                     # a full disk: the outcome is worth waiting for room
    done
    rm -rf work env env.* pipe pipe.* words
}

record() {
    dd of="exit.$$" conv=fsync 2>/dev/null <<EOF && mv -f "exit.$$" exit
$1
EOF
}

# --- ending a script --------------------------------------------------------------------------------------------------

# TERM to the whole group, KILL to what is left after the grace.
end() {
    read_task; read_pid
    alive "$lead" "$lead_since" || return 0
    kill -TERM "-$lead" 2>/dev/null
    wait_for_group
}

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

# Both also for a task this host has not seen yet: it is then known, and never starts.
cancel() {
    find_group
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
    rm -f env env.*
}

# --- reading ----------------------------------------------------------------------------------------------------------

# Follows from byte $1. The start is told at once. A status line every 5 s makes a follower whose reader has gone
# notice it.
follow() {
    pos=$1 pause=3 quiet=0 unclaimed=0 told=$state
    [ -z "${2-}" ] || printf '%s' "$2" || exit 0
    while :; do
        look
        # Where output is gone, the end says how much there was, which is more than came.
        if [ "$size" -gt "$pos" ] && plain output; then emit "$pos" "$size" || exit 0; pos=$size pause=3; fi
        if [ "$state" = running ] && [ "$told" != running ]; then told=$state; say || exit 0; fi
        [ "$state" = running ] || [ "$state" = accepted ] && [ "$unclaimed" -lt 500 ] || break
        nap "$pause"
        [ -n "$claimed" ] || unclaimed=$((unclaimed + pause))  # nobody starts it: let the caller deliver again
        quiet=$((quiet + pause)) pause=$((pause * 2))
        [ "$pause" -le 25 ] || pause=25
        [ "$quiet" -lt 500 ] || { quiet=0; say || exit 0; }
    done
    say
}

# dd moves the offset that head then reads from; reading through to it would cost the whole file at every look.
emit() { { [ "$1" = 0 ] || dd bs=1 skip="$1" count=0 2>/dev/null; head -c "$(($2 - $1))"; } <output; }

forget() {
    for id in "$@"; do
        enter "$id" || continue
        look
        case $state in finished | interrupted) rm -f env env.*; create forgotten '' ;; *) say ;; esac
    done
    sweep 1048576
}

# Forgotten journals stay a week, so that a late second delivery finds them; when all together hold more than so many
# KiB, what no delivery needs of them goes sooner, the oldest first. Ended ones that nobody ever forgot, for the word was
# lost or its sender is no more, stay 30 days, whole.
sweep() {
    rm -rf "$root"/dropped-*        # of a sweep that was cut off
    cd "$root/tasks" 2>/dev/null || return 0
    # Whoever should have read the values is gone: a task that was interrupted before its start.
    find . -maxdepth 2 -name 'env*' 2>/dev/null | while IFS=/ read -r _ id _; do
        (enter "$id" && look && case $state in finished | interrupted) rm -f env env.* ;; esac)
    done
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

main() {
    export TWINLINE_UMASK="${TWINLINE_UMASK:-$(umask)}"
    umask 077
    root=${TWINLINE_JOURNAL:-$HOME/.twinline/journal} shell=${TWINLINE_SHELL:-sh}
    self=${TWINLINE_RUNNER:-$0}     # set by the `sh` over SSH that reads this in
    verb=$1 state=; shift
    case $verb in
    start) start ;;
    run) start "$1"; look; say; follow "$2" "${3-}" ;;
    follow) enter "$1"; follow "$2" "${3-}" ;;
    status) enter "$1"; look; say ;;
    cancel | withdraw) enter "$1"; $verb; look; say ;;
    forget) forget "$@" ;;
    sweep) sweep "${1-1048576}" ;;
    supervise | lead | end) enter "$1" "${2-}" && "$verb" ;;
    *) die "unknown command '$verb'" ;;
    esac
}

main "$@"; exit
