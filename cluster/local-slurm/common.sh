# shellcheck shell=bash
# Shared by `up` and `down`: reads options, and finds the processes of the Slurm in a folder. To be sourced, not run.

PATH=$PATH:/usr/sbin:/sbin # folders of the daemons, which are not on every user's PATH
dir=/tmp/modtrain-slurm
nodes=3

refuse() { # refuse SENTENCE: exit because of a wrong request
    printf 'local-slurm: %s\n' "$1" >&2
    exit 2
}

read_options() { # read_options "--dir --nodes" "$@"
    local known=$1 option
    shift
    while [ $# -gt 0 ]; do
        option=${1%%=*}
        [[ " $known " == *" $option "* ]] || refuse "there is no option $1; the options are $known."
        if [[ $1 != *=* ]]; then
            [ $# -gt 1 ] || refuse "$1 needs a value."
            set -- "$1=$2" "${@:3}"
        fi
        printf -v "${option#--}" %s "${1#*=}"
        shift
    done
    # slurm.conf splits at spaces and has no quoting; the path of a socket has at most 107 characters.
    [[ $dir =~ ^[A-Za-z0-9/._-]{1,60}$ ]] ||
        refuse "--dir '$dir' may have at most 60 characters, of A-Z a-z 0-9 / . _ -; use a short one like /tmp/slurm."
    [[ $dir == /* ]] || dir=$PWD/$dir
    dir=${dir%/}
    [[ $nodes =~ ^[1-9][0-9]?$ ]] || refuse "--nodes '$nodes' must be a number from 1 to 99."
}

is_ours() { # whether `up` has created the folder for this user
    [ -O "$dir" ] && [ -e "$dir/made-by-local-slurm" ]
}

node_names() { # of the Slurm in the folder, independent of --nodes
    cat "$dir/nodes" 2>/dev/null || true
}

pid_of() { # pid_of PIDFILE: the pid if it runs and is a daemon of this folder (another process may have reused a pid)
    local pid
    { read -r pid <"$1"; } 2>/dev/null || return 1
    [[ $pid =~ ^[0-9]+$ ]] && grep -qsF -- "$dir/" "/proc/$pid/cmdline" && printf '%s\n' "$pid"
}
