# The task runner: starts a task at most once on a host, keeps its journal, and answers from its files alone. Its text is
# that of `lead`, `supervise`, `start` and `keep`, in this order: a shell reads it as far as it must, so what every task's
# processes need comes first.
#
#   start | run ID OFFSET        a framed task on stdin; `run` then follows it
#   follow ID OFFSET [MARKER]    output from OFFSET on stdout until the end, status lines on stderr
#   status ID | cancel ID | withdraw ID | forget ID... | sweep [KIB]
#   lead | supervise | end       inner steps, each in its own process
#
# Files of <root>/tasks/<id>/, and who writes them:
#   task     start      limits and the host's boot id; fsynced before the acknowledgement, so a reboot is always noticed
#   script   start
#   pid      supervise  line 1, created exclusively: whoever creates it, and nobody else, may start the script
#            supervise  line 2: the watchdog, and its start time
#            lead       line 3: process group, its start time, when, and when by the clock that never jumps
#   work/    start, or else lead: where the script begins; emptied at the end
#   output   the copier, a `cat`: the script's stdout and stderr, append only
#   stop     cancel, or the watchdog: why the script is being ended; `end`: that its group was told
#   exit     supervise  one line, by one write; without its newline it does not count
# Values of a task's environment are in none of them: they go from `start` to `lead` through a pipe, or where a shell
# keeps here-documents in files, through one without a name.
#
# Needs Linux, a POSIX sh (dash, bash, busybox) and awk, cat, date, dd, du, env, find, head, id, ls, mkdir, mv, rm,
# rmdir, sleep; setsid, or else perl; and mkfifo, where the sh keeps here-documents in files. Times are hundredths
# of a second, for sh has no fractions.
set -u

# $since = start time of process $1, $pgrp its group, $mode its state; fails when it is gone or a zombie, which one whose
# first thread has ended before others is not. The name in /proc/PID/stat may hold anything, blanks, brackets and newlines
# too, so fields are counted from the last bracket.
since() {
    since= pgrp= mode= stat= part=
    [ -r "/proc/$1/stat" ] || return 1
    { while read -r part; do stat="$stat $part"; done <"/proc/$1/stat"; } 2>/dev/null
    set -- ${stat##*) }
    [ $# -ge 20 ] && [ "$1" != X ] && { [ "$1" != Z ] || [ "${18}" -gt 1 ]; } && since=${20} pgrp=$3 mode=$1
}

# $clock never jumps when somebody sets the time.
read_clock() {
    read -r clock _ </proc/uptime
    clock=$((${clock%.*} * 100 + 1${clock#*.} - 100))       # "08" would be a bad octal number
}

# It tells its numbers before it looks at `stop` again, `cancel` does it the other way round: one of the two always sees
# the other. Who wants to end it then waits for the group that it makes next, so what may take long comes before. The
# working directory is the task's.
lead() {
    account
    epoch=$(date +%s.%N); case $epoch in *[!0-9.]* | *.) epoch=${epoch%%.*} ;; esac
    [ ! -e stop ] || exit 0
    since $$; read_clock
    echo "group $$ $since ${epoch:-0} $clock" >>pid || exit 126
    [ ! -e stop ] || exit 0
    exec </dev/null >&5 2>&1 4<&- 5>&- 7>&- 9>&-
    script=$PWD/script$1
    interpreter "$script"
    cd work 2>/dev/null || { mkdir work && cd work; } || exit 126
    umask "$TWINLINE_UMASK"
    set -- "$interp" ${arg:+"$arg"} "$script"
    perl=; command -v setsid >/dev/null || perl=$(command -v perl)
    # The same for every script, whoever started the runner: nothing shows of a login, or of an agent's unit.
    # TWINLINE_INSTANCE, where it is set, marks what runs on a machine of the local cloud.
    export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
    export HOME="$home" USER="$account" LOGNAME="$account" SHELL=/bin/sh LANG=C.UTF-8
    unset TWINLINE_JOURNAL TWINLINE_SHELL TWINLINE_RUNNER TWINLINE_UMASK TWINLINE_LEAD OLDPWD PWD SHLVL _
    # Not as the others do it: perl would heed values of the script, and complain of a locale.
    [ -z "$perl" ] ||
        LANG=C exec "$perl" -MPOSIX -e 'setsid;exec@ARGV;exit 127' /bin/sh -c 'LANG=C.UTF-8; . /proc/self/fd/6' sh "$@"
    . /proc/self/fd/6           # ends with "$@", in a process group of its own
    echo 'twinline: the values for this script were lost on the way'; exit 126
}

# As the kernel reads #!, but needing neither an x bit nor a file system that allows exec.
interpreter() {
    interp= arg= first=
    IFS= read -r first <"$1"
    case $first in
    '#!'[[:blank:]]*) read -r _ interp arg <"$1" ;;
    '#!'*) read -r interp arg <"$1"; interp=${interp#??} ;;
    esac
    if [ -n "$interp" ]; then
        command -v "$interp" >/dev/null && [ ! -d "$interp" ] && return
        echo "twinline: no interpreter $interp on this host: install it, or name another one"; exit 127
    elif [ -x /bin/bash ]; then interp=/bin/bash arg=-e
    else interp=/bin/sh arg=-e; fi
}

# $account and its $home, which a unit without a user does not tell. A login's word is enough where it fits.
account() {
    account=${LOGNAME-} home=${HOME-}
    case $account in
    '' | [0-9]* | *[!A-Za-z0-9._-]*) account= ;;
    *) eval "[ \"\$home\" = ~$account ]" && [ -O "$home" ] || account= ;;
    esac
    [ -n "$account" ] && return
    account=$(id -un 2>/dev/null) || account=$(id -u)
    [ -z "$home" ] || return
    case $account in [0-9]* | *[!A-Za-z0-9._-]*) home=/ ;; *) eval "home=~$account" ;; esac
}

[ "${1-}" != lead ] || lead "${2-}"
