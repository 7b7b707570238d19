# Taking a task in, and following it.

say() { printf 'twinline-status id=%s state=%s %s\n' "$id" "$state" "$detail" >&2; }

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

# $fresh when it is us who start it; else $state is what has become of the task.
start() {
    unset env text                  # a login may have exported variables of these names
    word= version= env= text=
    read -r word version id digest bytes limits     # limits: timeout (or -), kill_after, max_output
    [ "$word $version" = 'twinline-task 1' ] || die 'no task frame on stdin: send one made for this runner'
    [ "${1-$id}" = "$id" ] || die "the frame is for $id, not $1"
    IFS= read -r env; find_tools
    if enter "$id" || ! make_directory; then
        enter "$id" || die "cannot make $dir"
        settled && return
        suffix=.$$                      # whoever made the directory was cut off: our files do not meet theirs
    fi
    { [ "$verb" = start ] || open_bell; } && open_pipe || discard "cannot make a pipe in $dir: its file system has none"
    receive
    env=$(printf '%b\n=' "$env"; command -v setsid)    # both by one process
    case ${env##*$newline} in =*) group=${env##*$newline=} ;; *) discard 'this host is short of processes' ;; esac
    exec 6<<EOF
${env%$newline*}
exec 6<&-; exec ${group:+"$group"} "\$@"
EOF
    detached supervise "$id" "$suffix"
    exec 4<&- 5>&- 6<&-
    fresh=yes state=accepted detail='reason= size=0 started='
}

find_tools() {
    for tool in awk cat date env id; do command -v $tool >/dev/null || die "no $tool on this host: install it"; done
    command -v setsid >/dev/null || command -v perl >/dev/null ||
        die 'no setsid and no perl on this host: install util-linux'
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

# A short script is a line of text, which takes no process to read.
receive() {
    if [ "$bytes" = - ]; then
        IFS= read -r text || discard "script of $id came incomplete: send it again"
        { printf %b "$text" >"script$suffix"; } 2>/dev/null || discard "cannot write $dir/script"
    else
        head -c "$bytes" >"script$suffix"
        file_size "script$suffix"
        [ "$size" = "$bytes" ] || discard "script of $id came incomplete, $size of $bytes bytes: send it again"
    fi
    read_boot
    [ -s task ] || dd of=task conv=fsync 2>/dev/null <<EOF || { rm -f task; discard "cannot write $dir/task"; }
$id $digest $limits $host_boot
EOF
}

discard() {
    rm -f "script$suffix"
    [ "$(echo *)" != work ] || rmdir work "$dir" 2>/dev/null     # or somebody else delivers it, whose script is in there
    die "$@"
}

# A pipe from 5 to 4. What is behind a here-document is one in most shells; in others it is a file.
open_pipe() {
    if { [ -p /proc/self/fd/4 ] && { :; } 5>/proc/self/fd/4; } 2>/dev/null 4<<EOF; then
.
EOF
        exec 4<<EOF
.
EOF
        read -r _ <&4
        exec 5>/proc/self/fd/4
    else
        mkfifo "pipe.$$" || return
        exec 3<>"pipe.$$" 4<"pipe.$$" 5>"pipe.$$" 3>&-      # both ways first: either end would wait for the other
        rm -f "pipe.$$"
    fi
}

open_bell() { open_pipe && exec 8<&4 9>&5 4<&- 5>&-; }

# Starts an inner step that outlives us, without `&` (see wait_for_lead) and with little of our environment. A setsid
# that leads a group forks, hence two of them where one has no -f.
detached() {
    set -- env -i PATH="$PATH" HOME="${HOME-}" LOGNAME="${LOGNAME-}" LANG=C.UTF-8 TWINLINE_JOURNAL="$root" \
        TWINLINE_SHELL="$shell" TWINLINE_RUNNER="$self" TWINLINE_UMASK="$TWINLINE_UMASK" \
        ${TWINLINE_INSTANCE:+TWINLINE_INSTANCE="$TWINLINE_INSTANCE"} $shell "$self" "$@"
    { setsid -f "$@" || setsid setsid "$@" || perl -MPOSIX -e 'fork&&exit;setsid;exec@ARGV;exit 127' "$@"; } \
        </dev/null >/dev/null 2>&1 8<&-
}

# Follows from byte $1. The start is told within a moment. A status line every 5 s makes a follower whose reader has gone
# notice it.
follow() {
    pos=$1 quiet=0 unclaimed=0 claimed= told=$state ticker=
    [ -z "${2-}" ] || printf '%s' "$2" || exit 0
    [ -n "$fresh" ] || show
    while [ "$state" = running ] || [ "$state" = accepted ] && [ "$unclaimed" -lt 500 ]; do
        hear
        show
        [ -n "$claimed" ] || unclaimed=$((unclaimed + 25))     # nobody starts it: let the caller deliver again
        quiet=$((quiet + 25))
        [ "$quiet" -lt 500 ] || { quiet=0; say || exit 0; }
    done
    say
}

show() {
    look
    # Where output is gone, the end says how much there was, which is more than came.
    if [ "$size" -gt "$pos" ] && plain output; then emit "$pos" "$size" || exit 0; pos=$size; fi
    if [ "$state" = running ] && [ "$told" != running ]; then told=$state; say || exit 0; fi
}

# dd moves the offset that head then reads from; reading through to it would cost the whole file at every look.
emit() { { [ "$1" = 0 ] || dd bs=1 skip="$1" count=0 2>/dev/null; head -c "$(($2 - $1))"; } <output; }

# Waits until the supervisor of a task that we started rings, but only for a moment: there may be output.
hear() {
    if [ -z "$ticker" ]; then
        [ -p /proc/self/fd/8 ] || open_bell
        while sleep 0.25 2>/dev/null || sleep 1; do echo || exit; done </dev/null >&9 2>/dev/null 8<&- &
        ticker=$!
        trap 'kill $ticker 2>/dev/null' EXIT
        exec 9>&-               # so that no ring will come is seen, when all others were killed
    fi
    { read -r _ <&8; } 2>/dev/null || nap 25
}

fresh= newline="
"
case $verb in
start) exec 8<&- 9>&-; start; exit ;;
run) start "$1"; say; follow "$2" "${3-}"; exit ;;
follow) enter "$1"; follow "$2" "${3-}"; exit ;;
esac
